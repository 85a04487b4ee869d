import pg from 'pg'
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
import { withDeadline } from '../../domain/waits.js'
import { StartError } from '../../start-error.js'
import { untilClosed } from '../until-closed.js'
import { ConfirmedPositions } from '../confirmed-positions.js'
import { Appender } from './appender.js'
import { Connection } from './connection.js'
import { isTransient, type Logger, silentLogger } from './errors.js'
import { HeadWatcher } from './head-watcher.js'
import { LogTail } from './log-tail.js'
import { isPosition, numberOf, toPlace, zeroPosition } from './positions.js'
import { Reads } from './reads.js'
import { ensureSchema } from './schema.js'
import { SeenEnd } from './seen-end.js'
import { followAll, followStream, pageEventsMax } from './subscriptions.js'

export interface PostgresEventStoreOptions {
  connectionString: string
  logger?: Logger
  /** Listen for the commits of other processes, so as not to wait for the next look. Default true. */
  notify?: boolean
  /** How often to look for events of other processes, where there are others. Default 200. */
  pollIntervalMs?: number
  /** How long a batch may take before its session is given up and its outcome settled. Default 5,000. */
  appendDeadlineMs?: number
  /** Ends the start when somebody else has locked the tables for longer than this. Default 10,000. */
  schemaLockMsMax?: number
  /** How long an append waits for a lost database before it fails. Default 3,000. */
  settleMs?: number
  /** Appends that wait, at most; more are refused. Default 64 MiB. */
  queuedBytesMax?: number
  /** The most recent events kept in memory for live readers. Default 8,192 events, 64 MiB. */
  recentEventsMax?: number
  recentBytesMax?: number
  /** Hears that the log lost events that this store has seen: nothing more is appended, and nothing new is read. */
  onSetBack?: (error: Error) => void
}

const appendDeadlineMs = 5000
const schemaLockMsMax = 10_000
const closeMsMax = 1_000
const readConnectionsMax = 4
const keepAliveIdleMs = 10_000

/** The log in Postgres: schema `log`, one dedicated session that appends, one that watches, a small pool that reads. */
export class PostgresEventStore implements EventStore {
  readonly #pool: pg.Pool
  readonly #reads: Reads
  readonly #connection: Connection
  readonly #tail: LogTail
  readonly #closing: AbortController
  readonly #confirmed = new ConfirmedPositions()
  #appender!: Appender
  #watcher!: HeadWatcher
  #isSetBack = false

  private constructor(parts: { pool: pg.Pool; reads: Reads; connection: Connection; tail: LogTail; closing: AbortController }) {
    this.#pool = parts.pool
    this.#reads = parts.reads
    this.#connection = parts.connection
    this.#tail = parts.tail
    this.#closing = parts.closing
  }

  /** Connects, and creates the schema where it is missing. @throws {StoreUnavailable} @throws {StartError} the schema is locked */
  static async open(options: PostgresEventStoreOptions): Promise<PostgresEventStore> {
    const opened: (() => Promise<void>)[] = []
    try {
      return await PostgresEventStore.#open(options, opened)
    } catch (error) {
      // A server that says nothing is not waited for.
      const closing = Promise.allSettled(opened.map((close) => close()))
      await withDeadline(closing, closeMsMax, () => new StoreUnavailable('late')).catch(() => undefined)
      throw isTransient(error) && !(error instanceof StartError)
        ? new StoreUnavailable('The log cannot be opened', { cause: error })
        : error
    }
  }

  static async #open(options: PostgresEventStoreOptions, opened: (() => Promise<void>)[]): Promise<PostgresEventStore> {
    const { connectionString, logger = silentLogger } = options
    const closing = new AbortController()
    // Made once the end of the log is read: the first session has nothing to confirm.
    const end: { seen?: SeenEnd } = {}
    const confirmEnd = async (client: pg.Client) => end.seen?.confirm(client)
    const connection = await openAppendConnection(connectionString, logger, options.appendDeadlineMs ?? appendDeadlineMs, confirmEnd)
    opened.push(() => connection.close())
    await ensureSchema(connection.client!, options.schemaLockMsMax ?? schemaLockMsMax)
    const pool = openReadPool(connectionString)
    opened.push(() => pool.end())
    const reads = new Reads(pool)
    const head = await reads.head()
    const tail = new LogTail({
      start: numberOf(head),
      read: (after) => reads.page(toPlace(after), { limit: pageEventsMax }),
      eventsMax: options.recentEventsMax ?? 8_192,
      bytesMax: options.recentBytesMax ?? 64 << 20,
      signal: closing.signal,
    })
    const store = new PostgresEventStore({ pool, reads, connection, tail, closing })
    end.seen = new SeenEnd(head, tail, (error) => store.#setBack(error, options.onSetBack))
    await store.#start(options, logger, end.seen)
    return store
  }

  /** Once: nothing more is written to the log, nor read from it, nor brought to those who follow it. */
  #setBack(error: Error, onSetBack: PostgresEventStoreOptions['onSetBack']): void {
    if (this.#isSetBack) return
    this.#isSetBack = true
    this.#reads.end()
    void this.#connection.close()
    void this.#watcher?.close()
    onSetBack?.(error)
  }

  async #start(options: PostgresEventStoreOptions, logger: Logger, seen: SeenEnd): Promise<void> {
    this.#appender = new Appender({
      connection: this.#connection,
      tail: this.#tail,
      announces: () => this.#watcher.othersListen,
      deadlineMs: options.appendDeadlineMs ?? appendDeadlineMs,
      settleMs: options.settleMs ?? 3000,
      queuedBytesMax: options.queuedBytesMax ?? 64 << 20,
    })
    this.#watcher = await HeadWatcher.open({
      connectionString: options.connectionString,
      tail: this.#tail,
      seen,
      logger,
      ownBatchSettled: () => this.#appender.settled(),
      notify: options.notify ?? true,
      pollIntervalMs: options.pollIntervalMs ?? 200,
      signal: this.#closing.signal,
    })
  }

  append(append: Append): Promise<AppendResult> {
    return this.#appender.append(append)
  }

  readStream(stream: string, options: ReadStreamOptions): Promise<StreamPage> {
    return this.#reads.stream(stream, options)
  }

  readAll(after: Position | undefined, options: ReadAllOptions): Promise<LogPage> {
    return this.#reads.page(after ?? zeroPosition, options)
  }

  subscribeToAll(after: Position | undefined, { prefixes = [] }: Filter, signal: AbortSignal): AsyncIterable<FeedItem> {
    const start = after ?? zeroPosition
    // A wrong one is the caller's to hear, not to be tried again for ever.
    numberOf(start)
    return untilClosed(signal, this.#closing.signal, (either) =>
      followAll({ tail: this.#tail, reads: this.#reads }, start, prefixes, either),
    )
  }

  subscribeToStream(stream: string, afterRevision: number, signal: AbortSignal): AsyncIterable<readonly RecordedEvent[]> {
    return untilClosed(signal, this.#closing.signal, (either) =>
      followStream({ tail: this.#tail, reads: this.#reads }, stream, afterRevision, either),
    )
  }

  head(): Promise<Position> {
    return this.#reads.head()
  }

  async confirms(text: string): Promise<boolean> {
    if (!isPosition(text)) return false
    const number = numberOf(text)
    if (number === 0) return text === zeroPosition
    const recent = this.#tail.at(number)
    if (recent !== undefined) return recent.position === text
    return this.#confirmed.confirms(text, () => this.#reads.positionAt(number))
  }

  async close(): Promise<void> {
    await this.#appender.close()
    if (this.#closing.signal.aborted) return
    this.#closing.abort()
    await Promise.all([this.#watcher.close(), this.#connection.close(), this.#pool.end()])
  }
}

function openAppendConnection(
  connectionString: string,
  logger: Logger,
  deadlineMs: number,
  confirmEnd: (client: pg.Client) => Promise<void>,
): Promise<Connection> {
  return Connection.open({
    connectionString,
    applicationName: 'convolog log appender',
    prepare: async (client) => {
      // An acknowledgement means durable, whatever the database's default is. The append function needs READ COMMITTED,
      // and its plan is made while the tables may be empty: it must go by the index then, too.
      await client.query(
        "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off",
      )
      // A little before we give the session up, so that most late batches are refused for certain.
      await client.query(`SET statement_timeout = ${Math.ceil(deadlineMs * 0.9)}`)
      await confirmEnd(client)
    },
    onLost: (err) => logger.warn({ err }, 'The database of the log is lost; connecting again'),
    onBack: () => logger.info({}, 'The database of the log is back'),
  })
}

function openReadPool(connectionString: string): pg.Pool {
  const pool = new pg.Pool({
    connectionString,
    max: readConnectionsMax,
    application_name: 'convolog log reader',
    connectionTimeoutMillis: 5000,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveIdleMs,
    // All reads go in the order of an index and stop at a limit. Where the planner thinks that a filter lets little through,
    // it would rather collect the whole range and sort it, page after page. (The pool waits for the promise.)
    // oxlint-disable-next-line typescript/no-misused-promises
    onConnect: async (client) => {
      await client.query('SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off')
    },
  })
  // An idle connection that breaks says so here; the next read makes another.
  pool.on('error', () => {})
  return pool
}
