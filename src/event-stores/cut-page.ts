import type { RecordedEvent } from '../domain/event-store.js'

/**
 * More than the metadata of any event takes: ids of 64 characters, an app's name and a request id of 128 and a hash.
 * Its exact size would cost an encoding.
 */
const METADATA_BYTES_MAX = 1_024

/** Collects a page from a source that cannot cut by bytes itself; what comes after the cut is dropped. */
export class CutPage {
  readonly events: RecordedEvent[] = []
  readonly #limit: number
  readonly #bytesMax: number
  #bytes = 0
  #isCut = false

  constructor(limit: number, bytesMax: number) {
    this.#limit = limit
    this.#bytesMax = bytesMax
  }

  /** True once an event came that did not fit. */
  get isCut(): boolean {
    return this.#isCut
  }

  /** True if no further event fits. */
  get isFull(): boolean {
    return this.events.length >= this.#limit || this.#bytes >= this.#bytesMax
  }

  add(event: RecordedEvent): void {
    if (this.#isCut) return
    const bytes = this.#bytes + Buffer.byteLength(event.dataJson) + METADATA_BYTES_MAX
    this.#isCut = this.events.length >= this.#limit || (this.events.length > 0 && bytes > this.#bytesMax)
    if (this.#isCut) return
    this.events.push(event)
    this.#bytes = bytes
  }
}
