import type { Delivery } from './delivery.js'

const UNACKED_MAX = 1_000
/** The texts are shared with other devices; that they are shared is not relied on. */
export const UNACKED_CHARACTERS_MAX = 1 << 20
const REPUSHES_MAX = 3
/** Of one look; the rest is given at the next one. */
const DUE_CHARACTERS_MAX = 256 * 1024

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
  #characters = 0
  /** Conversations of which something fell out of the window unacknowledged: announced by `head`. */
  readonly #overflowed = new Map<string, number>()
  readonly #repushAfterMs: number
  readonly #now: () => number

  constructor(repushAfterMs: number, now: () => number = () => performance.now()) {
    this.#repushAfterMs = repushAfterMs
    this.#now = now
  }

  track({ conversationId, firstSeq, events }: Delivery): void {
    if (firstSeq === undefined) return
    events.forEach((event, index) => this.#add({ conversationId, seq: firstSeq + index, event, sentAt: this.#now(), repushes: 0 }))
    for (const oldest of this.#events) {
      if (this.#events.size <= UNACKED_MAX && this.#characters <= UNACKED_CHARACTERS_MAX) break
      this.#drop(oldest)
      this.#overflowed.set(oldest.conversationId, oldest.seq)
    }
  }

  #add(unacked: Unacked): void {
    this.#events.add(unacked)
    this.#characters += unacked.event.length
  }

  #drop(unacked: Unacked): void {
    if (this.#events.delete(unacked)) this.#characters -= unacked.event.length
  }

  /** All of the conversation up to `seq` has arrived. Gives whether something was waiting for that. */
  acknowledge(conversationId: string, seq: number): boolean {
    const before = this.#events.size
    for (const unacked of this.#events) if (unacked.conversationId === conversationId && unacked.seq <= seq) this.#drop(unacked)
    if ((this.#overflowed.get(conversationId) ?? Infinity) <= seq) this.#overflowed.delete(conversationId)
    return this.#events.size < before
  }

  /** What is due to be sent once more, by conversation, and which heads are to be announced. Each is given at most three times, 5 s apart. */
  takeDue(): { events: Map<string, string[]>; heads: Map<string, number> } {
    const now = this.#now()
    const events = new Map<string, string[]>()
    let characters = 0
    for (const unacked of this.#events) {
      if (now - unacked.sentAt < this.#repushAfterMs) continue
      if (unacked.repushes >= REPUSHES_MAX) {
        this.#drop(unacked)
        continue
      }
      characters += unacked.event.length
      if (characters > DUE_CHARACTERS_MAX && events.size > 0) break
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
