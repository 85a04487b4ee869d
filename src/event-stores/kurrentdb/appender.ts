import { setTimeout as sleep } from 'node:timers/promises'
import { lruMap } from '../../domain/lru-map.js'
import { type Append, AppendOutcomeUnknown, type AppendResult, RecordedEvent, StoreUnavailable } from '../../domain/event-store.js'
import { positionOf } from '../../domain/position.js'
import { withDeadline } from '../../domain/waits.js'
import { backoffMs } from '../retry.js'
import { requireWellFormed } from '../well-formed.js'
import { BatchStream, type Reply } from './batch-stream.js'
import { encodeAppend, sizeOf } from './codec.js'
import type { Connection, Session } from './connection.js'
import { type BatchAppendCall, openBatchAppend } from './internals.js'
import type { LiveTail } from './live-tail.js'
import { later, zeroPosition } from './positions.js'
import type { Reads } from './reads.js'

export interface AppenderOptions {
  connection: Connection
  reads: Reads
  tail: LiveTail
  streamPrefix: string
  /** How long one try may take before its outcome counts as unknown. */
  deadlineMs: number
  /** For how long an append is tried again after its first trouble. */
  settleMs: number
  /** The server's own limit of one append. */
  appendBytesMax: number
  /** Appends that wait, at most; more are refused. */
  queuedBytesMax: number
}

type Request = ReturnType<typeof encodeAppend>

/** How many appends are on their way at once, at most. */
const inFlightMax = 1024
/** A writer waits no longer for the outcome of its append; it goes on being found out, so that the stream's next append comes after it. */
const outcomeMsMax = 9000
const knownStreamsMax = 100_000
/** A client is not given up for a shorter silence than this. */
const silenceMsMin = 1000
/** How long the live feed may take to bring what was appended, before it is read. */
const liveMsMax = 250
/** How long the live feed is kept for appends after the last that needed it. */
const followMs = 30_000

/** Appends of one stream go one after the other, those of many streams side by side in one gRPC call. */
export class Appender {
  readonly #options: AppenderOptions
  readonly #streams = new WeakMap<Session, BatchStream>()
  readonly #opening = new WeakMap<Session, Promise<BatchAppendCall>>()
  /** The last append of each stream that has any. */
  readonly #lanes = new Map<string, Promise<void>>()
  /** Streams of which this process knows what is in them; see #landmark. */
  readonly #known = lruMap<string, true>(knownStreamsMax)
  readonly #gate = new Gate(inFlightMax)
  /** The latest place that this process has been told of. */
  #seen = zeroPosition
  #queuedBytes = 0
  #follows: NodeJS.Timeout | undefined
  #closed = false

  constructor(options: AppenderOptions) {
    this.#options = options
  }

  async append(append: Append): Promise<AppendResult> {
    requireWellFormed(append)
    if (append.events.some(({ type }) => type.includes('\0'))) throw new TypeError('An event type cannot hold NUL')
    const { appendBytesMax, queuedBytesMax, streamPrefix } = this.#options
    const request = encodeAppend(append, streamPrefix)
    const bytes = sizeOf(request)
    // All or nothing: an append can't be split.
    if (bytes > appendBytesMax) throw new RangeError(`An append of ${bytes} bytes is more than the ${appendBytesMax} that the server takes`)
    if (this.#closed) throw new StoreUnavailable('The store is closed')
    if (this.#queuedBytes > queuedBytesMax) throw new StoreUnavailable('Too much waits for the log already')
    this.#queuedBytes += bytes
    const settled = this.#inLane(append.stream, () => this.#gate.pass(() => this.#deliver(append, request)))
    settled.finally(() => (this.#queuedBytes -= bytes)).catch(noop)
    return withDeadline(settled, outcomeMsMax, () => new AppendOutcomeUnknown(`The outcome was not found out within ${outcomeMsMax} ms`))
  }

  /** This process has read the stream. */
  knows(stream: string): void {
    this.#known.set(stream, true)
  }

  /** Takes no more, and ends when all that was taken is settled. */
  async close(): Promise<void> {
    this.#closed = true
    while (this.#lanes.size > 0) await Promise.all(this.#lanes.values())
    this.#unfollow()
  }

  /** Whether a second append at one revision conflicts is known only once the first is settled. */
  #inLane<T>(stream: string, run: () => Promise<T>): Promise<T> {
    const before = this.#lanes.get(stream)
    const result = before === undefined ? run() : before.then(run)
    const settled = result.then(noop, noop).then(() => {
      if (this.#lanes.get(stream) === settled) this.#lanes.delete(stream)
    })
    this.#lanes.set(stream, settled)
    return result
  }

  /** Sends the append, and the very same again where its outcome is not known: the server then answers as it would have at first. */
  async #deliver(append: Append, request: Request): Promise<AppendResult> {
    const { settleMs } = this.#options
    const landmark = await this.#landmark(append.stream)
    if (append.events.length > 1) await this.#followAppends()
    let trouble: unknown
    let troubleAt = 0
    let maybe = false
    for (let attempt = 0; attempt === 0 || performance.now() - troubleAt < settleMs; attempt++) {
      if (attempt > 0) await sleep(backoffMs(attempt - 1))
      const reply = await this.#send(request, troubleAt)
      if (reply.kind === 'committed') return this.#committed(append, reply.place, landmark)
      if (reply.kind === 'conflict') return this.#conflicting(append, reply.actualRevision)
      this.#known.delete(append.stream)
      if (reply.kind === 'refused' && !maybe) throw new Error(`The log refused the append: ${reply.reason}`)
      trouble = reply.reason
      maybe ||= reply.kind === 'unknown'
      // Where the log is away for longer already, nobody waits for it once more.
      troubleAt ||= this.#options.connection.lostAt ?? performance.now()
    }
    if (!maybe) throw new StoreUnavailable('The log cannot write now', { cause: trouble })
    return this.#unsettled(append, trouble)
  }

  async #send(request: Request, troubleAt: number): Promise<Reply> {
    const { connection, deadlineMs, settleMs } = this.#options
    const { session } = connection
    const patienceMs = troubleAt === 0 ? deadlineMs : Math.max(1, Math.min(deadlineMs, troubleAt + settleMs - performance.now()))
    const stream = this.#streams.get(session) ?? (await this.#open(session, patienceMs))
    if (stream === undefined) return { kind: 'notNow', reason: new Error('There is no connection to the log') }
    const reply = await stream.send(request, patienceMs)
    if (reply.kind === 'unknown') connection.silent(session, Math.max(patienceMs, silenceMsMin))
    if (reply.kind === 'notNow') connection.failed(session, reply.reason)
    return reply
  }

  /** The session's one append call; undefined where it does not come about in time, for the client looks for a node at its leisure. */
  async #open(session: Session, withinMs: number): Promise<BatchStream | undefined> {
    const { connection } = this.#options
    const opening = this.#opening.get(session) ?? openBatchAppend(session.client, session.requiresLeader)
    this.#opening.set(session, opening)
    const patience = new AbortController()
    const call = await Promise.race([
      opening.catch((error: unknown) => connection.failed(session, error)),
      sleep(withinMs, undefined, { signal: patience.signal }).catch(noop),
    ])
    patience.abort()
    const opened = this.#streams.get(session)
    if (!call || opened !== undefined) return opened
    const stream = new BatchStream(call, {
      onAnswer: () => connection.heard(session),
      onEnd: (error) => {
        this.#streams.delete(session)
        this.#opening.delete(session)
        connection.failed(session, error)
      },
    })
    this.#streams.set(session, stream)
    return stream
  }

  /**
   * A place that is no earlier than anything this append may have left behind before. The server answers a repeated append
   * like a first one, with the place of the original, and only by that place can it be told. Of a stream that this process knows,
   * only its own acknowledged appends can come again; of others it asks how far the log reaches.
   */
  async #landmark(stream: string): Promise<string> {
    if (!this.#known.has(stream))
      this.#seen = later(this.#seen, await this.#patiently(() => this.#options.reads.end(this.#options.deadlineMs)))
    return this.#seen
  }

  async #committed(append: Append, place: string | undefined, landmark: string): Promise<AppendResult> {
    const events = await this.#placed(append, place)
    const last = events.at(-1)!.place
    this.#seen = later(this.#seen, last)
    this.#known.set(append.stream, true)
    return { outcome: last <= landmark ? 'duplicate' : 'appended', events }
  }

  /**
   * The answer has but the last event's place. The others have theirs in the live feed, which brings them within milliseconds anyway;
   * to read each append back was measured at three times the cost of the append.
   */
  async #placed(append: Append, last: string | undefined): Promise<RecordedEvent[]> {
    const { events } = append
    if (last !== undefined && events.length === 1) return [RecordedEvent.committed(events[0]!, last)]
    const live =
      last === undefined
        ? undefined
        : await this.#options.tail.upTo(positionOf(last, events.at(-1)!.metadata.hash), events.length, liveMsMax)
    if (live?.every(({ id }, i) => id === events[i]!.id)) return events.map((event, i) => RecordedEvent.committed(event, live[i]!.place))
    const stored = await this.#patiently(() => this.#stored(append)).catch((error: unknown) => {
      throw new AppendOutcomeUnknown('The append was committed, but where could not be read', { cause: error })
    })
    if (stored === undefined) throw new AppendOutcomeUnknown('The append was committed, but is not there')
    return stored
  }

  /** Keeps the live feed running for a while where nobody else does. */
  async #followAppends(): Promise<void> {
    const { tail, reads, deadlineMs } = this.#options
    if (this.#follows === undefined && !tail.isRunning) {
      const head = await this.#patiently(() => reads.head(deadlineMs))
      if (this.#follows === undefined && !this.#closed) {
        tail.addReader(head)
        this.#follows = setTimeout(() => this.#unfollow(), followMs).unref()
      }
    }
    this.#follows?.refresh()
  }

  #unfollow(): void {
    if (this.#follows === undefined) return
    clearTimeout(this.#follows)
    this.#follows = undefined
    this.#options.tail.removeReader()
  }

  async #conflicting(append: Append, actualRevision: number): Promise<AppendResult> {
    const { expectedRevision, events, stream } = append
    const originals = actualRevision >= expectedRevision + events.length ? await this.#patiently(() => this.#stored(append)) : undefined
    this.#known.set(stream, true)
    return originals === undefined ? { outcome: 'conflict', actualRevision } : { outcome: 'duplicate', events: originals }
  }

  /** A last look: where its events are in the stream it happened; where others are in their place it never will. */
  async #unsettled(append: Append, trouble: unknown): Promise<AppendResult> {
    const { reads, deadlineMs } = this.#options
    const unknown = new AppendOutcomeUnknown('The outcome of the append could not be found out', { cause: trouble })
    try {
      // One read answers both: what is in doubt may still arrive, and between two reads it would pass for somebody else's.
      const inPlace = await this.#inPlace(append)
      const originals = originalsOf(append, inPlace)
      if (originals !== undefined) return { outcome: 'duplicate', events: originals }
      if (inPlace.length > 0) {
        const { events } = await reads.stream(append.stream, { direction: 'backwards', limit: 1 }, deadlineMs)
        return { outcome: 'conflict', actualRevision: events[0]!.revision }
      }
    } catch {
      throw unknown
    }
    throw unknown
  }

  /** The events of this append where the log holds them, at the place that they were made for. */
  async #stored(append: Append): Promise<RecordedEvent[] | undefined> {
    return originalsOf(append, await this.#inPlace(append))
  }

  /** Whatever the log holds at the place that this append was made for. */
  async #inPlace({ stream, expectedRevision, events }: Append): Promise<RecordedEvent[]> {
    const { reads, deadlineMs } = this.#options
    // No more bytes than the append itself has, which has a bound: the page is not to be cut.
    const page = await reads.stream(stream, { from: expectedRevision + 1, limit: events.length, bytesMax: Infinity }, deadlineMs)
    return page.events
  }

  /** Reads, and again while the log has been away for no longer than an append would wait. */
  async #patiently<T>(read: () => Promise<T>): Promise<T> {
    const { connection, settleMs } = this.#options
    const startedAt = performance.now()
    for (let attempt = 0; ; attempt++) {
      try {
        return await read()
      } catch (error) {
        const troubleAt = connection.lostAt ?? startedAt
        if (!(error instanceof StoreUnavailable) || performance.now() - troubleAt > settleMs) throw error
        await sleep(backoffMs(attempt))
      }
    }
  }
}

function originalsOf({ events }: Append, inPlace: readonly RecordedEvent[]): RecordedEvent[] | undefined {
  if (inPlace.length !== events.length || inPlace.some(({ id }, i) => id !== events[i]!.id)) return undefined
  return events.map((event, i) => RecordedEvent.committed(event, inPlace[i]!.place))
}

/** Lets so many through at once, and the others in their order. */
class Gate {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(width: number) {
    this.#free = width
  }

  async pass<T>(run: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--
    else await new Promise<void>((resolve) => this.#waiting.push(resolve))
    try {
      return await run()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }
}

function noop(): void {}
