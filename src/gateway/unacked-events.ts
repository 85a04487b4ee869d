import type { Delivery } from './connection.js'

const UNACKED_MAX = 1_000
const REPUSH_AFTER_MS = 5_000
const REPUSHES_MAX = 3

interface Unacked {
  conversationId: string
  seq: number
  event: string
  sentAt: number
  repushes: number
}

/** What a device with `acks: true` was sent and has not acknowledged yet: a bounded window. */
export class UnackedEvents {
  /** In the order of sending. */
  readonly #events = new Set<Unacked>()
  /** Conversations of which something fell out of the window unacknowledged: announced by `head`. */
  readonly #overflowed = new Map<string, number>()
  readonly #now: () => number

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  track({ conversationId, firstSeq, events }: Delivery): void {
    if (firstSeq === undefined) return
    events.forEach((event, index) => this.#events.add({ conversationId, seq: firstSeq + index, event, sentAt: this.#now(), repushes: 0 }))
    for (const oldest of this.#events) {
      if (this.#events.size <= UNACKED_MAX) break
      this.#events.delete(oldest)
      this.#overflowed.set(oldest.conversationId, oldest.seq)
    }
  }

  /** All of the conversation up to `seq` has arrived. */
  acknowledge(conversationId: string, seq: number): void {
    for (const unacked of this.#events) if (unacked.conversationId === conversationId && unacked.seq <= seq) this.#events.delete(unacked)
    if ((this.#overflowed.get(conversationId) ?? Infinity) <= seq) this.#overflowed.delete(conversationId)
  }

  /** What is due to be sent once more, by conversation, and which heads are to be announced. Each is given at most three times, 5 s apart. */
  takeDue(): { events: Map<string, string[]>; heads: Map<string, number> } {
    const now = this.#now()
    const events = new Map<string, string[]>()
    for (const unacked of this.#events) {
      if (now - unacked.sentAt < REPUSH_AFTER_MS) continue
      if (unacked.repushes >= REPUSHES_MAX) {
        this.#events.delete(unacked)
        continue
      }
      unacked.sentAt = now
      unacked.repushes += 1
      const due = events.get(unacked.conversationId) ?? []
      due.push(unacked.event)
      events.set(unacked.conversationId, due)
    }
    const heads = new Map(this.#overflowed)
    this.#overflowed.clear()
    return { events, heads }
  }
}
