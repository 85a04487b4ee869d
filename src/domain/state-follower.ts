import { setTimeout as delay } from 'node:timers/promises'
import type { Conversations } from './conversations.js'
import type { EventStore, Position, RecordedEvent } from './event-store.js'
import { CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX, idOfStream } from './ids.js'
import type { Logger } from './logger.js'
import type { Users } from './users.js'

export interface StateFollowerOptions {
  store: EventStore
  conversations: Conversations
  users: Users
  logger: Logger
}

/** Folded states follow the log, so that what other nodes write is known here. */
export function followStates(events: readonly RecordedEvent[], conversations: Conversations, users: Users): void {
  for (const event of events) {
    if (event.stream.startsWith(CONVERSATION_PREFIX)) conversations.follow(idOfStream(event.stream), event)
    else if (event.stream.startsWith(RECEIPTS_PREFIX)) conversations.followReceipts(idOfStream(event.stream), event)
    else if (event.stream.startsWith(USER_PREFIX)) users.follow(idOfStream(event.stream), event)
  }
}

/** The live feed of a node that delivers to nobody: it follows for its states alone. */
export class StateFollower {
  readonly #options: StateFollowerOptions
  readonly #stopping = new AbortController()
  #position: Position = ''
  #following: Promise<void> = Promise.resolve()
  #waiters: { position: Position; resolve: () => void }[] = []

  constructor(options: StateFollowerOptions) {
    this.#options = options
  }

  get position(): Position {
    return this.#position
  }

  /** Resolves when the feed has reached a position. */
  reached(position: Position): Promise<void> {
    if (this.#position >= position) return Promise.resolve()
    return new Promise((resolve) => this.#waiters.push({ position, resolve }))
  }

  /** From the present end on: nothing is in memory yet that could be older. @throws {StoreUnavailable} */
  async start(): Promise<void> {
    this.#position = await this.#options.store.head()
    this.#following = this.#follow(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#following
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { store, conversations, users, logger } = this.#options
    const filter = { prefixes: [CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX] }
    while (!signal.aborted) {
      try {
        for await (const item of store.subscribeToAll(this.#position, filter, signal)) {
          if (item.kind === 'events') followStates(item.events, conversations, users)
          this.#moveTo(item.kind === 'events' ? (item.events.at(-1)?.position ?? this.#position) : item.position)
        }
      } catch (error) {
        logger.error({ err: error }, 'the live feed broke; it goes on from its last position')
        await delay(200 + Math.random() * 300, undefined, { signal }).catch(() => {})
      }
    }
  }

  #moveTo(position: Position): void {
    this.#position = position
    for (const { position: awaited, resolve } of this.#waiters) if (awaited <= position) resolve()
    this.#waiters = this.#waiters.filter((waiter) => waiter.position > position)
  }
}
