import { type FeedItem, NO_STREAM, type Position, type RecordedEvent } from '../../domain/event-store.js'
import type { LogTail } from './log-tail.js'
import { numberOf } from './positions.js'
import type { Reads } from './reads.js'
import { persistently } from '../retry.js'

export interface Log {
  tail: LogTail
  reads: Reads
}

/** The most events in one item of a feed. */
export const pageEventsMax = 4096
/** The most events in one page of a single stream's past. */
const streamPageEventsMax = 256
/** How many events a busy feed may drop before it says where it is. */
const droppedEventsMax = 10_000

/** The whole log from after `after`, from memory where the tail reaches back so far, else from the database. */
export async function* followAll(
  log: Log,
  after: Position,
  prefixes: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<FeedItem, void> {
  const { tail } = log
  const pages = new Pages(log, prefixes, signal)
  let position = after
  let cursor = numberOf(after)
  let said = cursor
  tail.addReader()
  try {
    const head = await persistently(() => log.reads.head(), signal)
    if (head === undefined) return
    const target = numberOf(head)
    tail.noticed(target)
    for (let behind = true; !signal.aborted; ) {
      if (behind && cursor >= target) {
        behind = false
        said = cursor
        yield { kind: 'caughtUp', position }
      } else if (cursor > said && (cursor >= tail.position || cursor - said >= droppedEventsMax)) {
        // Said also before each wait: who waits for a position that the filter drops would wait for ever.
        said = cursor
        yield { kind: 'checkpoint', position }
      } else if (cursor >= tail.position) {
        await tail.waitPast(cursor, signal)
      } else {
        const page = await pages.after(position, cursor)
        if (page === undefined) return
        position = page.position
        cursor = numberOf(position)
        const last = page.events.at(-1)
        if (last === undefined) continue
        said = numberOf(last.position)
        yield { kind: 'events', events: page.events }
      }
    }
  } finally {
    tail.removeReader()
  }
}

/** One stream from after `afterRevision`: its past by the index, its future from the log. */
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

  constructor(log: Log, prefixes: readonly string[], signal: AbortSignal) {
    this.#log = log
    this.#prefixes = prefixes
    this.#signal = signal
  }

  /** `number`: that of the event at `position`. */
  async after(position: Position, number: number): Promise<{ events: readonly RecordedEvent[]; position: Position } | undefined> {
    const recent = this.#log.tail.take(number, pageEventsMax)
    if (recent !== undefined) return { events: this.#filter(recent), position: recent.at(-1)?.position ?? position }
    return persistently(() => this.#log.reads.page(position, { prefixes: this.#prefixes, limit: pageEventsMax }), this.#signal)
  }

  #filter(events: RecordedEvent[]): RecordedEvent[] {
    if (this.#prefixes.length === 0) return events
    return events.filter(({ stream }) => this.#prefixes.some((prefix) => stream.startsWith(prefix)))
  }
}
