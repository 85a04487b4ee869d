import { setTimeout as delay } from 'node:timers/promises'
import type { Conversations } from './conversations.js'
import type { EventStore, Position, RecordedEvent } from './event-store.js'
import { CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX, idOfStream } from './ids.js'
import type { Logger } from './logger.js'
import type { Users } from './users.js'
import { FeedProgress } from './waits.js'

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
  readonly #progress = new FeedProgress()
  #following: Promise<void> = Promise.resolve()

  constructor(options: StateFollowerOptions) {
    this.#options = options
  }

  get position(): Position {
    return this.#progress.position
  }

  /** Resolves when the feed has reached a position. @throws {Refusal} unavailable after a while, or when this stops */
  reached(position: Position, withinMs?: number): Promise<void> {
    return this.#progress.reached(position, withinMs)
  }

  /** From the present end on: nothing is in memory yet that could be older. @throws {StoreUnavailable} */
  async start(): Promise<void> {
    this.#progress.moveTo(await this.#options.store.head())
    this.#following = this.#follow(this.#stopping.signal)
  }

  /** Who waits for the feed waits no longer. */
  endWaits(): void {
    this.#progress.end()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.endWaits()
    await this.#following
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { store, conversations, users, logger } = this.#options
    const filter = { prefixes: [CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX] }
    while (!signal.aborted) {
      try {
        for await (const item of store.subscribeToAll(this.position, filter, signal)) {
          if (item.kind === 'events') followStates(item.events, conversations, users)
          this.#progress.moveTo(item.kind === 'events' ? (item.events.at(-1)?.position ?? this.position) : item.position)
        }
      } catch (error) {
        logger.error({ err: error }, 'the live feed broke; it goes on from its last position')
        await delay(200 + Math.random() * 300, undefined, { signal }).catch(() => {})
      }
    }
  }
}
