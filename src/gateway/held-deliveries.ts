import { blankRecalled } from '../domain/client-event.js'
import type { Position } from '../domain/event-store.js'
import { type RecallsAhead, union } from '../domain/recalls-ahead.js'
import type { Delivery } from './delivery.js'
import { eventsFrame } from './frames.js'

/** Frames held back while a resume is being sent; what comes beyond that is announced by `head`. */
export const HELD_BYTES_MAX = 512 * 1024

interface HeldHead {
  seq: number
  resume: Position
}

/**
 * Holds what the live feed brings to a device while older events are still being sent to it. That may take as long as the device
 * takes to read them, so what is recalled meanwhile is blanked, and of a conversation that its user leaves or is removed from
 * meanwhile only that event is left.
 *
 * | what comes | while there is room | once there was none |
 * |---|---|---|
 * | events | kept | a `head` for their conversation |
 * | a `head` | kept | a `head` for its conversation |
 * | the own departure | kept, in place of all that was held of its conversation | the same, sent after what was kept and before the heads |
 */
export class HeldDeliveries {
  readonly #userId: string
  readonly #recallsAhead: RecallsAhead
  #kept: Delivery[] = []
  #keptBytes = 0
  #isFull = false
  readonly #heads = new Map<string, HeldHead>()
  /** By conversation; the last of each. */
  readonly #lateDepartures = new Map<string, Delivery>()
  readonly #recalled = new Map<string, Set<number>>()

  constructor(userId: string, recallsAhead: RecallsAhead) {
    this.#userId = userId
    this.#recallsAhead = recallsAhead
  }

  /** Counts the frames that are kept. */
  get bytes(): number {
    return this.#keptBytes
  }

  hold(delivery: Delivery): void {
    this.#noteRecalls(delivery)
    if (delivery.left === this.#userId) return this.#holdDeparture(delivery)
    const { conversationId, lastSeq, resume } = delivery
    this.#keptBytes += delivery.frame.length
    this.#isFull ||= this.#keptBytes > HELD_BYTES_MAX
    if (this.#isFull) this.#heads.set(conversationId, { seq: lastSeq, resume })
    else this.#kept.push(delivery)
  }

  #noteRecalls({ conversationId, recalls }: Delivery): void {
    if (!recalls) return
    const recalled = this.#recalled.get(conversationId)
    if (recalled) for (const seq of recalls.keys()) recalled.add(seq)
    else this.#recalled.set(conversationId, new Set(recalls.keys()))
  }

  /** A former member is owed nothing else of its conversation, and no head. */
  #holdDeparture({ conversationId, lastSeq, events, resume, left }: Delivery): void {
    this.#kept = this.#kept.filter((kept) => kept.conversationId !== conversationId)
    this.#heads.delete(conversationId)
    this.#lateDepartures.delete(conversationId)
    const own = events.slice(-1)
    const departure: Delivery = { frame: eventsFrame(own, resume), conversationId, firstSeq: lastSeq, lastSeq, events: own, resume, left }
    if (this.#isFull) this.#lateDepartures.set(conversationId, departure)
    else this.#kept.push(departure)
  }

  /** Gives the deliveries that were kept, in their order. */
  kept(): Delivery[] {
    return this.#kept.map((delivery) => this.#withoutRecalled(delivery))
  }

  /** Gives what came when there was no more room: the user's own departures, and a head for each other conversation. */
  late(): { departures: Delivery[]; heads: Map<string, HeldHead> } {
    return { departures: [...this.#lateDepartures.values()], heads: this.#heads }
  }

  #withoutRecalled(delivery: Delivery): Delivery {
    const recalled = union(this.#recalled.get(delivery.conversationId), this.#recallsAhead.of(delivery.conversationId))
    if (!recalled || delivery.events.length === 0) return delivery
    const events = delivery.events.map((event) => blankRecalled(event, recalled))
    return { ...delivery, events, frame: eventsFrame(events, delivery.resume) }
  }
}
