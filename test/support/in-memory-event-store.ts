import {
  type Append,
  AppendOutcomeUnknown,
  type AppendResult,
  type EventStore,
  type FeedItem,
  type Filter,
  type LogPage,
  NO_STREAM,
  type Position,
  READ_BYTES_MAX,
  RecordedEvent,
  type ReadAllOptions,
  type ReadStreamOptions,
  StoreUnavailable,
  type StreamPage,
} from '../../src/domain/event-store.js'
import { CutPage } from '../../src/event-stores/cut-page.js'

/** An event with its metadata as text, for readers who parse it anew. */
class StoredEvent extends RecordedEvent {
  readonly metadataJson: string

  constructor(event: RecordedEvent, place: string, metadataJson: string) {
    super(event, place, metadataJson)
    this.metadataJson = metadataJson
  }
}

/** The log itself: several stores on one of these are several nodes on one server. */
export class InMemoryLog {
  readonly events: StoredEvent[] = []
  readonly streams = new Map<string, StoredEvent[]>()
  readonly #waiting = new Set<() => void>()

  append({ stream, expectedRevision, events }: Append): AppendResult {
    const stored = this.streams.get(stream) ?? []
    const there = stored.slice(expectedRevision + 1, expectedRevision + 1 + events.length)
    if (there.length === events.length && events.every((event, i) => event.id === there[i]!.id))
      return { outcome: 'duplicate', events: there }
    if (stored.length - 1 !== expectedRevision) return { outcome: 'conflict', actualRevision: stored.length - 1 }
    const recorded = events.map((event, i) => RecordedEvent.committed(event, placeOf(this.events.length + i + 1)))
    // Kept as text and parsed anew, as from a disk: nobody shares objects with the log.
    this.#store(
      stream,
      recorded.map((event) => new StoredEvent(event, event.place, JSON.stringify(event.metadata))),
    )
    return { outcome: 'appended', events: recorded }
  }

  /** Begins with the events of one stream that another log has begun with. */
  beginWith(events: readonly StoredEvent[]): void {
    this.#store(events[0]!.stream, events)
  }

  #store(stream: string, events: readonly StoredEvent[]): void {
    const stored = this.streams.get(stream)
    this.events.push(...events)
    if (stored) stored.push(...events)
    else this.streams.set(stream, [...events])
    for (const wake of this.#waiting) wake()
  }

  head(): Position {
    return this.events.at(-1)?.position ?? placeOf(0)
  }

  /** Resolves with the next append, or when `signal` aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake)
    })
  }
}

/** What happens to one append: it is handed what would have happened. */
export type Fault = (append: Append, happen: () => AppendResult) => AppendResult | Promise<AppendResult>

export const unavailableNow: Fault = () => {
  throw new StoreUnavailable('the store is away')
}
export const unknownButDone: Fault = (_, happen) => {
  happen()
  throw new AppendOutcomeUnknown('the answer was lost')
}
export const unknownNotDone: Fault = () => {
  throw new AppendOutcomeUnknown('the request was lost')
}
/** Another writer gets in first. */
export const after =
  (other: () => unknown): Fault =>
  async (_, happen) => {
    await other()
    return happen()
  }

/** An append that takes until it is let go; `reached` resolves when it has begun. */
export function slow(): { fault: Fault; reached: Promise<Append>; letGo: () => void } {
  const { promise: reached, resolve: reach } = withResolvers<Append>()
  const { promise: released, resolve: letGo } = withResolvers<void>()
  const fault: Fault = async (append, happen) => {
    reach(append)
    await released
    return happen()
  }
  return { fault, reached, letGo }
}

/** The event store port, faithfully, in memory, with faults to order. */
export class InMemoryEventStore implements EventStore {
  readonly log: InMemoryLog
  /** The appends that were asked for, also those that failed. */
  readonly appends: Append[] = []
  /** What befalls the next appends, one each. */
  readonly faults: Fault[] = []
  /** Called before each read; may throw or wait. */
  beforeRead: (stream: string) => unknown = () => undefined
  reads = 0
  readonly #closed = new AbortController()

  constructor(log = new InMemoryLog()) {
    this.log = log
  }

  async append(append: Append): Promise<AppendResult> {
    requireSense(append)
    this.appends.push(append)
    const fault = this.faults.shift()
    return fault ? fault(append, () => this.log.append(append)) : this.log.append(append)
  }

  async readStream(
    stream: string,
    { direction = 'forwards', from, limit, bytesMax = READ_BYTES_MAX }: ReadStreamOptions,
  ): Promise<StreamPage> {
    this.reads += 1
    const waited = this.beforeRead(stream)
    if (waited instanceof Promise) await waited
    const events = this.log.streams.get(stream) ?? []
    const page = new CutPage(limit, bytesMax)
    const step = direction === 'forwards' ? 1 : -1
    const start = direction === 'forwards' ? (from ?? 0) : Math.min(from ?? events.length, events.length - 1)
    for (let i = start; events[i] !== undefined && !page.isCut; i += step) page.add(forReader(events[i]!))
    return { events: page.events, isEnd: !page.isCut }
  }

  async readAll(
    afterPosition: Position | undefined,
    { prefixes = [], limit, bytesMax = READ_BYTES_MAX }: ReadAllOptions,
  ): Promise<LogPage> {
    const passes = ({ stream }: RecordedEvent) => prefixes.length === 0 || prefixes.some((prefix) => stream.startsWith(prefix))
    const page = new CutPage(limit, bytesMax)
    for (const event of this.log.events.slice(numberOf(afterPosition))) {
      if (passes(event)) page.add(forReader(event))
      if (page.isCut) return { events: page.events, position: page.events.at(-1)!.position, isEnd: false }
    }
    return { events: page.events, position: this.log.head(), isEnd: true }
  }

  async *subscribeToAll(afterPosition: Position | undefined, filter: Filter, signal: AbortSignal): AsyncIterable<FeedItem> {
    const ended = AbortSignal.any([signal, this.#closed.signal])
    let last = afterPosition
    let isCaughtUp = false
    while (!ended.aborted) {
      const { events, position } = await this.readAll(last, { ...filter, limit: 500 })
      const moved = position !== last
      last = position
      if (events.length > 0) yield { kind: 'events', events }
      if (moved && isCaughtUp && events.at(-1)?.position !== position) yield { kind: 'checkpoint', position }
      if (ended.aborted) return
      if (position !== this.log.head()) continue
      if (!isCaughtUp) yield { kind: 'caughtUp', position }
      isCaughtUp = true
      if (position === this.log.head() && !ended.aborted) await this.log.changed(ended)
    }
  }

  async *subscribeToStream(stream: string, afterRevision: number, signal: AbortSignal): AsyncIterable<readonly RecordedEvent[]> {
    const ended = AbortSignal.any([signal, this.#closed.signal])
    for (let last = afterRevision; !ended.aborted; ) {
      const { events } = await this.readStream(stream, { from: last + 1, limit: 500 })
      if (ended.aborted) return
      last = events.at(-1)?.revision ?? last
      if (events.length > 0) yield events
      else await this.log.changed(ended)
    }
  }

  async head(): Promise<Position> {
    return this.log.head()
  }

  async confirms(text: string): Promise<boolean> {
    return text === placeOf(0) || this.log.events[numberOf(text) - 1]?.position === text
  }

  async close(): Promise<void> {
    this.#closed.abort()
  }
}

const placeOf = (number: number) => String(number).padStart(16, '0')
const numberOf = (position: Position | undefined) => Number(position?.slice(0, 16) ?? 0)

const forReader = (event: StoredEvent) => new RecordedEvent(event, event.place, event.metadataJson)

function requireSense({ stream, expectedRevision, events }: Append): void {
  if (events.length === 0 || expectedRevision < NO_STREAM) throw new TypeError('an append of nothing, or before the beginning')
  for (const [i, event] of events.entries()) {
    if (event.stream !== stream || event.revision !== expectedRevision + 1 + i)
      throw new TypeError(`${event.stream}@${event.revision} has no place here`)
    if (!/^[0-9a-f-]{36}$/.test(event.id)) throw new TypeError(`${event.id} is no UUID`)
    if (event.type.includes('\0')) throw new Error('NUL can not be stored')
  }
}

/** Promise.withResolvers, which Node 20 does not have. */
export function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
