import type { Position } from '../domain/event-store.js'
import type { Recalled } from '../domain/recalls-ahead.js'

/** Facts on their way to a device: one frame shared by all who get it, and what it says. */
export interface Delivery {
  frame: Buffer
  conversationId: string
  /** Undefined for a `head`. */
  firstSeq?: number
  lastSeq: number
  /** The facts as JSON text, one by one; for a re-push. */
  events: readonly string[]
  resume: Position
  /** The user whose membership ends with the last of these events. */
  left?: string | undefined
  /** The messages that these events recall, also where a `head` stands for them. */
  recalls?: Recalled | undefined
}

/** A place in the feed, and by conversation the last seq that was waiting to be merged there. */
export interface Attached {
  position: Position
  /** Not beyond what waits to be merged: from here on the feed has brought nothing to this device yet. */
  resume: Position
  merging: ReadonlyMap<string, number>
  /** The user's `departures` at that place. */
  departures: number
}
