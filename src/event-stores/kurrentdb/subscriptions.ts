import { type FeedItem, NO_STREAM, type Position, type RecordedEvent } from '../../domain/event-store.js'
import { persistently } from '../retry.js'
import type { LiveTail } from './live-tail.js'
import type { Reads } from './reads.js'

export interface Log {
  tail: LiveTail
  reads: Reads
}

/** The most events in one item of a feed. */
const pageEventsMax = 4096
/** The most events in one page of a single stream's past. */
const streamPageEventsMax = 256
/** How many events a busy feed may drop before it says where it is. */
const droppedEventsMax = 10_000

/** The whole log from after `after`, from memory where the tail reaches back so far, else in pages filtered by the server. */
export async function* followAll(
  log: Log,
  after: Position,
  prefixes: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<FeedItem, void> {
  const { tail } = log
  const target = await persistently(() => log.reads.head(), signal)
  if (target === undefined) return
  const pages = new Pages(log, prefixes, signal)
  let cursor = after
  let said = after
  tail.addReader(target)
  try {
    for (let behind = true; !signal.aborted; ) {
      if (behind && cursor >= target) {
        behind = false
        said = cursor
        yield { kind: 'caughtUp', position: cursor }
      } else if (cursor > said && (cursor >= tail.position || pages.dropped >= droppedEventsMax)) {
        // Said also before each wait: who waits for a position that the filter drops would wait for ever.
        said = cursor
        pages.dropped = 0
        yield { kind: 'checkpoint', position: cursor }
      } else if (cursor >= tail.position) {
        await tail.waitPast(cursor, signal)
      } else {
        const page = await pages.after(cursor)
        if (page === undefined) return
        cursor = page.position
        if (page.events.length === 0) continue
        said = page.events.at(-1)!.position
        pages.dropped = 0
        yield { kind: 'events', events: page.events }
      }
    }
  } finally {
    tail.removeReader()
  }
}

/** One stream from after `afterRevision`: its past by its index, its future from the log. */
export async function* followStream(
  log: Log,
  stream: string,
  afterRevision: number,
  signal: AbortSignal,
): AsyncGenerator<readonly RecordedEvent[], void> {
  // Asked first: what is committed while the past is read comes again with the log, and is dropped by revision.
  const head = await persistently(() => log.reads.head(), signal)
  if (head === undefined) return
  let revision = Math.max(afterRevision, NO_STREAM)
  for (;;) {
    const from = revision + 1
    const page = await persistently(() => log.reads.stream(stream, { from, limit: streamPageEventsMax }), signal)
    if (page === undefined || signal.aborted) return
    revision = page.events.at(-1)?.revision ?? revision
    if (page.events.length > 0) yield page.events
    if (page.isEnd) break
  }
  for await (const item of followAll(log, head, [stream], signal)) {
    if (item.kind !== 'events') continue
    const events = item.events.filter((event) => event.stream === stream && event.revision > revision)
    if (events.length === 0) continue
    revision = events.at(-1)!.revision
    yield events
  }
}

/** Pages of the log for one reader. */
class Pages {
  readonly #log: Log
  readonly #prefixes: readonly string[]
  readonly #signal: AbortSignal
  /** How many events were dropped since this was last set to nothing. */
  dropped = 0

  constructor(log: Log, prefixes: readonly string[], signal: AbortSignal) {
    this.#log = log
    this.#prefixes = prefixes
    this.#signal = signal
  }

  async after(cursor: Position): Promise<{ events: readonly RecordedEvent[]; position: Position } | undefined> {
    const { tail, reads } = this.#log
    const recent = tail.take(cursor, pageEventsMax)
    if (recent !== undefined) {
      const events = this.#filter(recent)
      this.dropped += recent.length - events.length
      // Where that was all, the server may have said that there is nothing of ours further on.
      return { events, position: recent.length < pageEventsMax ? tail.position : recent.at(-1)!.position }
    }
    return persistently(() => reads.page(cursor, { prefixes: this.#prefixes, limit: pageEventsMax }), this.#signal)
  }

  #filter(events: RecordedEvent[]): RecordedEvent[] {
    if (this.#prefixes.length === 0) return events
    return events.filter(({ stream }) => this.#prefixes.some((prefix) => stream.startsWith(prefix)))
  }
}
