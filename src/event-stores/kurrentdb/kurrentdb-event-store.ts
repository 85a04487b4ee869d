import {
  type Append,
  type AppendResult,
  type EventStore,
  type FeedItem,
  type Filter,
  type LogPage,
  type Position,
  type ReadAllOptions,
  type ReadStreamOptions,
  type RecordedEvent,
  StoreUnavailable,
  type StreamPage,
} from '../../domain/event-store.js'
import type { Logger } from '../../domain/logger.js'
import { untilClosed } from '../until-closed.js'
import { ConfirmedPositions } from '../confirmed-positions.js'
import { Appender } from './appender.js'
import { Connection } from './connection.js'
import { LiveTail } from './live-tail.js'
import { fromPosition, isPosition, zeroPosition } from './positions.js'
import { Reads } from './reads.js'
import { followAll, followStream } from './subscriptions.js'

export interface KurrentDbEventStoreOptions {
  /** `esdb://user:password@host:2113?tls=true`, several hosts, or `esdb+discover://`: nodes, TLS and credentials are the client's affair. */
  connectionString: string
  logger?: Logger
  /** Begins the name of every stream in the database and is never seen outside: several logs in one cluster. Default none. */
  streamPrefix?: string
  /** How long a try of an append may take before its outcome counts as unknown. Default 5,000. */
  appendDeadlineMs?: number
  /** For how long an append is tried again after its first trouble. Default 3,000. */
  settleMs?: number
  /** What the server takes in one append (its MaxAppendSize). Default 1 MiB. */
  appendBytesMax?: number
  /** Appends that wait, at most; more are refused. Default 64 MiB. */
  queuedBytesMax?: number
  /** The most recent events kept in memory for live readers. Default 32,768 events, 64 MiB. */
  recentEventsMax?: number
  recentBytesMax?: number
}

const silentLogger: Logger = { info() {}, warn() {}, error() {} }

/** The log in KurrentDB, EventStoreDB before: one gRPC call that appends, one subscription that feeds all readers, reads in pages. */
export class KurrentDbEventStore implements EventStore {
  readonly #connection: Connection
  readonly #reads: Reads
  readonly #appender: Appender
  readonly #tail: LiveTail
  readonly #confirmed = new ConfirmedPositions()
  readonly #closing = new AbortController()

  private constructor(options: KurrentDbEventStoreOptions) {
    const { connectionString, logger = silentLogger, streamPrefix = '' } = options
    const connection = new Connection(connectionString, logger)
    const reads = new Reads(connection, streamPrefix)
    this.#connection = connection
    this.#reads = reads
    this.#tail = new LiveTail({
      connection,
      reads,
      streamPrefix,
      eventsMax: options.recentEventsMax ?? 32_768,
      bytesMax: options.recentBytesMax ?? 64 << 20,
    })
    this.#appender = new Appender({
      connection,
      reads,
      tail: this.#tail,
      streamPrefix,
      deadlineMs: options.appendDeadlineMs ?? 5000,
      settleMs: options.settleMs ?? 3000,
      appendBytesMax: options.appendBytesMax ?? 1 << 20,
      queuedBytesMax: options.queuedBytesMax ?? 64 << 20,
    })
  }

  /** Connects, and sees that the log can be read. @throws {StoreUnavailable} */
  static async open(options: KurrentDbEventStoreOptions): Promise<KurrentDbEventStore> {
    const store = new KurrentDbEventStore(options)
    try {
      await store.head()
      return store
    } catch (error) {
      await store.close()
      throw error
    }
  }

  append(append: Append): Promise<AppendResult> {
    return this.#appender.append(append)
  }

  async readStream(stream: string, options: ReadStreamOptions): Promise<StreamPage> {
    const page = await this.#reading(() => this.#reads.stream(stream, options))
    this.#appender.knows(stream)
    return page
  }

  readAll(after: Position | undefined, options: ReadAllOptions): Promise<LogPage> {
    return this.#reading(() => this.#reads.page(after ?? zeroPosition, options))
  }

  subscribeToAll(after: Position | undefined, { prefixes = [] }: Filter, signal: AbortSignal): AsyncIterable<FeedItem> {
    const start = after ?? zeroPosition
    // A wrong one is the caller's to hear, not to be tried again for ever.
    fromPosition(start)
    const log = { tail: this.#tail, reads: this.#reads }
    return untilClosed(signal, this.#closing.signal, (either) => followAll(log, start, prefixes, either))
  }

  subscribeToStream(stream: string, afterRevision: number, signal: AbortSignal): AsyncIterable<readonly RecordedEvent[]> {
    const log = { tail: this.#tail, reads: this.#reads }
    return untilClosed(signal, this.#closing.signal, (either) => followStream(log, stream, afterRevision, either))
  }

  head(): Promise<Position> {
    return this.#reading(() => this.#reads.head())
  }

  async confirms(text: string): Promise<boolean> {
    if (!isPosition(text)) return false
    if (text === zeroPosition || this.#tail.has(text)) return true
    return this.#confirmed.confirms(text, () => this.#reading(() => this.#reads.positionAt(text)))
  }

  async close(): Promise<void> {
    await this.#appender.close()
    this.#closing.abort()
    await this.#tail.close()
    await this.#connection.close()
  }

  async #reading<T>(read: () => Promise<T>): Promise<T> {
    if (this.#closing.signal.aborted) throw new StoreUnavailable('The store is closed')
    return read()
  }
}
