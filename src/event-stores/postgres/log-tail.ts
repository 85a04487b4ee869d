import type { RecordedEvent } from '../../domain/event-store.js'

export interface LogTailOptions {
  /** The last position of the log when the tail begins. */
  start: number
  /** Reads a page of the log from the database. */
  read: (after: number) => Promise<{ events: RecordedEvent[]; isEnd: boolean }>
  eventsMax: number
  bytesMax: number
  signal: AbortSignal
}

/** Roughly what an event takes beside its data. */
const eventOverheadBytes = 512

/**
 * The most recent events, in memory, in the order of the log and without a gap, for all readers of this process.
 * A reader is a cursor: who is within the ring takes from it, who is behind reads the database, so nothing is queued for anybody.
 */
export class LogTail {
  readonly #options: LogTailOptions
  readonly #ring: (RecordedEvent | undefined)[]
  readonly #waiting = new Set<() => void>()
  /** Our own commits that wait for the events of other processes before them. */
  #held: { first: number; events: readonly RecordedEvent[] }[] = []
  #heldEvents = 0
  #heldBytes = 0
  #first: number
  #last: number
  /** As far as the log is known to reach. */
  #known: number
  #bytes = 0
  #readers = 0
  #filling = false
  #lookAgain = false

  constructor(options: LogTailOptions) {
    this.#options = options
    this.#ring = new Array<RecordedEvent | undefined>(options.eventsMax)
    this.#first = options.start + 1
    this.#last = this.#known = options.start
  }

  /** The position up to which readers may go. */
  get position(): number {
    return this.#last
  }

  /** What this process committed, as soon as it is acknowledged. */
  committed(first: number, events: readonly RecordedEvent[]): void {
    this.#known = Math.max(this.#known, first + events.length - 1)
    if (first <= this.#last + 1) return this.#push(first, events)
    // Another process wrote in between; its events go first. What is not held is read from the database like theirs.
    if (this.#heldEvents < this.#options.eventsMax && this.#heldBytes < this.#options.bytesMax) this.#hold(first, events)
    void this.#fill()
  }

  /** The log reaches to `position`, somebody says who knows. */
  noticed(position: number): void {
    this.#known = Math.max(this.#known, position)
    void this.#fill()
  }

  /** Somebody says that there may be more. */
  async look(): Promise<void> {
    // A page that is being read may have been taken before what is announced now.
    this.#lookAgain = true
    if (this.#readers === 0 || this.#filling) return
    this.#filling = true
    while (this.#lookAgain) {
      this.#lookAgain = false
      const after = this.#last
      const page = await this.#options.read(after).catch(() => undefined)
      if (page === undefined) continue
      this.#append(after + 1, page.events)
      this.#lookAgain ||= !page.isEnd && !this.#options.signal.aborted
    }
    this.#filling = false
    void this.#fill()
  }

  /** Up to `limit` events from after `after`; none at the end; undefined when the ring does not reach back so far. */
  take(after: number, limit: number): RecordedEvent[] | undefined {
    if (after + 1 < this.#first) return undefined
    const count = Math.max(0, Math.min(limit, this.#last - after))
    const events = new Array<RecordedEvent>(count)
    for (let i = 0; i < count; i++) events[i] = this.#ring[(after + 1 + i) % this.#ring.length]!
    return events
  }

  /** The event at a position, where it is in memory. */
  at(position: number): RecordedEvent | undefined {
    return position >= this.#first && position <= this.#last ? this.#ring[position % this.#ring.length] : undefined
  }

  /** Ends when there is more than `position`, or the signal aborts. */
  waitPast(position: number, signal: AbortSignal): Promise<void> {
    if (this.#last > position || signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake)
    })
  }

  /** While nobody reads, what other processes write is passed over, not fetched. */
  addReader(): void {
    this.#readers++
  }

  removeReader(): void {
    this.#readers--
  }

  async #fill(): Promise<void> {
    if (this.#filling) return
    this.#filling = true
    while (this.#known > this.#last && !this.#options.signal.aborted) {
      if (this.#readers === 0 || this.#known - this.#last > this.#options.eventsMax) {
        this.#restartAt(this.#known)
        break
      }
      const after = this.#last
      const page = await this.#options.read(after).catch(() => undefined)
      // The next look at the head begins again: it also sees whether this is still the same log.
      if (page === undefined) break
      else if (page.events.length === 0) this.#known = this.#last
      else this.#append(after + 1, page.events)
    }
    this.#filling = false
    if (this.#lookAgain && !this.#options.signal.aborted) void this.look()
  }

  /** Takes a page from the database, and then our own commits that had waited for it. */
  #append(first: number, page: readonly RecordedEvent[]): void {
    this.#push(first, page)
    while (this.#held.length > 0 && this.#held[0]!.first <= this.#last + 1) {
      const held = this.#held.shift()!
      this.#heldEvents -= held.events.length
      this.#heldBytes -= bytesOfAll(held.events)
      this.#push(held.first, held.events)
    }
  }

  #hold(first: number, events: readonly RecordedEvent[]): void {
    this.#held.push({ first, events })
    this.#heldEvents += events.length
    this.#heldBytes += bytesOfAll(events)
  }

  /** Adds what is new of events that follow each other from `first` on, which is at most one past the last. */
  #push(first: number, events: readonly RecordedEvent[]): void {
    const size = this.#ring.length
    for (let i = Math.max(0, this.#last + 1 - first); i < events.length; i++) {
      const event = events[i]!
      if (this.#last + 1 - this.#first === size) this.#evict()
      this.#ring[++this.#last % size] = event
      this.#bytes += bytesOf(event)
    }
    while (this.#bytes > this.#options.bytesMax) this.#evict()
    this.#wake()
  }

  #evict(): void {
    const slot = this.#first++ % this.#ring.length
    this.#bytes -= bytesOf(this.#ring[slot]!)
    this.#ring[slot] = undefined
  }

  /** Forgets what it holds and goes on at `position`: the readers fetch what is before it for themselves. */
  #restartAt(position: number): void {
    while (this.#first <= this.#last) this.#evict()
    this.#held = []
    this.#heldEvents = this.#heldBytes = 0
    this.#first = position + 1
    this.#last = position
    this.#wake()
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
  }
}

const bytesOf = ({ dataJson }: RecordedEvent): number => dataJson.length + eventOverheadBytes
const bytesOfAll = (events: readonly RecordedEvent[]): number => events.reduce((sum, event) => sum + bytesOf(event), 0)
