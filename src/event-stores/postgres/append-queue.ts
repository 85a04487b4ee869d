import { type Append, type AppendResult, StoreUnavailable } from '../../domain/event-store.js'

/** What one batch may hold, so that a statement and the memory for it stay small. One larger append goes alone. */
const batchEventsMax = 4096
const batchBytesMax = 4 << 20

/** Roughly what an event takes beside its data. */
const eventOverheadBytes = 512

/** An append on its way, with the promise that its writer waits for. */
export class PendingAppend {
  readonly append: Append
  readonly bytes: number
  readonly settled: Promise<AppendResult>
  resolve!: (result: AppendResult) => void
  reject!: (error: unknown) => void
  /** The next one for the same stream. */
  next: PendingAppend | undefined

  constructor(append: Append) {
    this.append = append
    this.bytes = append.events.reduce((sum, event) => sum + event.dataJson.length + eventOverheadBytes, 0)
    this.settled = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }
}

/**
 * What waits to be committed. A second append for a stream waits behind the first, outside the line:
 * whether it conflicts is known only once the first is settled.
 */
export class AppendQueue {
  readonly #bytesMax: number
  readonly #lastOfStream = new Map<string, PendingAppend>()
  #line: PendingAppend[] = []
  #bytes = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** Whether anything is ready to go. */
  get isEmpty(): boolean {
    return this.#line.length === 0
  }

  /** @throws {StoreUnavailable} when too much waits already */
  add(append: Append): PendingAppend {
    if (this.#bytes > this.#bytesMax) throw new StoreUnavailable('Too much waits for the log already')
    const pending = new PendingAppend(append)
    this.#bytes += pending.bytes
    const before = this.#lastOfStream.get(append.stream)
    this.#lastOfStream.set(append.stream, pending)
    if (before === undefined) this.#line.push(pending)
    else before.next = pending
    return pending
  }

  takeBatch(): PendingAppend[] {
    const line = this.#line
    let events = 0
    let bytes = 0
    let count = 0
    for (const pending of line) {
      events += pending.append.events.length
      bytes += pending.bytes
      if (count > 0 && (events > batchEventsMax || bytes > batchBytesMax)) break
      count++
    }
    this.#line = count === line.length ? [] : line.slice(count)
    return count === line.length ? line : line.slice(0, count)
  }

  /** This one is settled: the next for its stream joins the line. */
  done(pending: PendingAppend): void {
    this.#bytes -= pending.bytes
    if (pending.next !== undefined) this.#line.push(pending.next)
    else this.#lastOfStream.delete(pending.append.stream)
  }
}
