import type { Position, RecordedEvent } from './event-store.js'

/** Bounds the recalls of all conversations together, about 100 bytes each. */
const RECALLS_AHEAD_MAX = 100_000

/** Messages of one conversation, by seq. */
export type Recalled = Pick<ReadonlySet<number>, 'has' | 'size' | 'keys'>

/** Both together; undefined where there are none. */
export function union(one: Recalled | undefined, other: Recalled | undefined): Recalled | undefined {
  return one && other ? new Set([...one.keys(), ...other.keys()]) : (one ?? other)
}

/**
 * The recalls that this node has acknowledged and its live feed has not brought yet. On a shared log the feed may bring a
 * message after its recall was acknowledged here; what is pushed is blanked by these. There are nearly always none.
 */
export class RecallsAhead {
  /** By conversation and message: where the feed has brought the recall, in rising order. */
  readonly #byConversation = new Map<string, Map<number, Position>>()
  #size = 0
  #followedTo: Position = ''

  /** True if the feed is so far behind that there is no room for another recall: it must then be refused. */
  get isFull(): boolean {
    return this.#size >= RECALLS_AHEAD_MAX
  }

  /** The messages of a conversation that are recalled ahead of the feed; undefined where there are none. */
  of(conversationId: string): Recalled | undefined {
    return this.#size === 0 ? undefined : this.#byConversation.get(conversationId)
  }

  /** The feed begins after `position`: it brings nothing that was written before. */
  startAt(position: Position): void {
    if (position > this.#followedTo) this.#followedTo = position
  }

  /** Takes a recall that is being acknowledged. `position`: of the recall, or of a later event of its conversation. */
  add(conversationId: string, messageSeq: number, position: Position): void {
    if (position <= this.#followedTo) return
    let recalls = this.#byConversation.get(conversationId)
    if (!recalls) this.#byConversation.set(conversationId, (recalls = new Map()))
    // The later place stands last, so that places rise.
    if (!recalls.delete(messageSeq)) this.#size += 1
    recalls.set(messageSeq, position)
  }

  /** Forgets what the feed has brought by this event. */
  follow(conversationId: string, { position }: RecordedEvent): void {
    this.#followedTo = position
    const recalls = this.#size === 0 ? undefined : this.#byConversation.get(conversationId)
    if (!recalls) return
    for (const [messageSeq, recalledAt] of recalls) {
      if (recalledAt > position) return
      recalls.delete(messageSeq)
      this.#size -= 1
    }
    this.#byConversation.delete(conversationId)
  }
}
