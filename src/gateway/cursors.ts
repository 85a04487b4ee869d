import type { Conversations } from '../domain/conversations.js'
import { Refusal } from '../domain/errors.js'
import type { Logger } from '../domain/logger.js'
import type { Connection } from './connection.js'
import { refusalFrame } from './frames.js'

interface Moved {
  connection: Connection
  conversationId: string
  /** Of the membership in which it was said. */
  joinedSeq: number
  readSeq?: number | undefined
  deliveredSeq?: number | undefined
  dueAt: number
}

/**
 * Cursors that clients move without waiting for an answer: gathered for a second, so that there is one event per member and
 * second at most and the last one wins, and flushed when a device leaves.
 */
export class Cursors {
  readonly #conversations: Conversations
  readonly #logger: Logger
  readonly #gatherMs: number
  /** By member; in the order in which they are due. */
  readonly #moved = new Map<string, Moved>()
  /** The same by connection: one that leaves looks at its own alone. */
  readonly #keysOf = new Map<Connection, Set<string>>()
  readonly #writing = new Set<Promise<void>>()
  #timer: NodeJS.Timeout | undefined

  constructor(conversations: Conversations, logger: Logger, gatherMs: number) {
    this.#conversations = conversations
    this.#logger = logger
    this.#gatherMs = gatherMs
  }

  /** `joinedSeq`: of the membership in which it is said. */
  read(connection: Connection, conversationId: string, seq: number, joinedSeq: number): void {
    const moved = this.#of(connection, conversationId, joinedSeq)
    moved.readSeq = Math.max(moved.readSeq ?? 0, seq)
  }

  delivered(connection: Connection, conversationId: string, seq: number, joinedSeq: number): void {
    const moved = this.#of(connection, conversationId, joinedSeq)
    moved.deliveredSeq = Math.max(moved.deliveredSeq ?? 0, seq)
  }

  /** What this device has moved is written now. */
  flushOf(connection: Connection): void {
    for (const key of this.#keysOf.get(connection) ?? []) this.#write(key, this.#moved.get(key)!)
  }

  /** Everything is written, also what is just being written. */
  async flushAll(): Promise<void> {
    clearTimeout(this.#timer)
    for (const [key, moved] of this.#moved) this.#write(key, moved)
    await Promise.all(this.#writing)
  }

  #of(connection: Connection, conversationId: string, joinedSeq: number): Moved {
    const key = `${connection.userId} ${conversationId}`
    let moved = this.#moved.get(key)
    if (!moved) {
      moved = { connection, conversationId, joinedSeq, dueAt: performance.now() + this.#gatherMs }
      this.#moved.set(key, moved)
      this.#timer ??= setTimeout(() => this.#writeDue(), this.#gatherMs)
    }
    this.#giveTo(connection, key, moved)
    // Cursors of a membership that has ended are void.
    if (moved.joinedSeq !== joinedSeq) Object.assign(moved, { joinedSeq, readSeq: undefined, deliveredSeq: undefined })
    return moved
  }

  /** The device that moved it last is the one that it leaves with. */
  #giveTo(connection: Connection, key: string, moved: Moved): void {
    if (moved.connection !== connection) this.#forget(key, moved)
    moved.connection = connection
    const keys = this.#keysOf.get(connection)
    if (keys) keys.add(key)
    else this.#keysOf.set(connection, new Set([key]))
  }

  #forget(key: string, { connection }: Moved): void {
    const keys = this.#keysOf.get(connection)
    keys?.delete(key)
    if (keys?.size === 0) this.#keysOf.delete(connection)
  }

  #writeDue(): void {
    this.#timer = undefined
    const now = performance.now()
    for (const [key, moved] of this.#moved) {
      if (moved.dueAt > now) {
        this.#timer = setTimeout(() => this.#writeDue(), moved.dueAt - now)
        return
      }
      this.#write(key, moved)
    }
  }

  #write(key: string, moved: Moved): void {
    this.#moved.delete(key)
    this.#forget(key, moved)
    const writing = this.#append(moved).finally(() => this.#writing.delete(writing))
    this.#writing.add(writing)
  }

  async #append({ connection, conversationId, joinedSeq, readSeq, deliveredSeq }: Moved): Promise<void> {
    const requester = { actor: connection.actor, correlationId: connection.sessionId }
    try {
      if (deliveredSeq !== undefined) await this.#conversations.markDelivered(conversationId, deliveredSeq, requester, joinedSeq)
      if (readSeq !== undefined) await this.#conversations.markRead(conversationId, readSeq, requester, joinedSeq)
    } catch (error) {
      // With the membership its cursors ended: that it was not_found meanwhile is no fault of the device.
      if (error instanceof Refusal && error.code === 'not_found') return
      if (error instanceof Refusal) connection.send(refusalFrame(undefined, error))
      else this.#logger.error({ err: error, conversationId }, 'a cursor was not moved')
    }
  }
}
