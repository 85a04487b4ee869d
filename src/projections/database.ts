/** How the read side reaches Postgres: pools, and what counts as its loss. */
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import pg from 'pg'
import { StoreUnavailable } from '../domain/event-store.js'
import { Refusal, unavailable } from '../domain/errors.js'
import { withDeadline } from '../domain/waits.js'
import { copyIn, isCopy } from './copy.js'

/** Tables are named by the file that owns them (`withTables`); most statements are `sql`. */
export type Database = Kysely<unknown>

export const READ_SCHEMA = 'read'
export const REBUILD_SCHEMA = 'rebuild'

/** No answer to a client takes longer than this, the wait for a connection included. The server gives up a little before. */
const READ_MS_MAX = 5_000
const STATEMENT_TIMEOUT_MS = 4_500
const CONNECT_TIMEOUT_MS = 5_000
/** What a statement has left at least after a long wait for a connection. */
const READ_MS_MIN = 250
/** A statement of a batch; and one that makes, fills or swaps whole tables. */
export const WRITE_MS_MAX = 60_000
const TABLES_MS_MAX = 3_600_000
const tableStatement = /^\s*(CREATE|DROP|ALTER|ANALYZE|LOCK)\b/i
/** A writer that runs no statement for so long sends an empty one: who holds a lease is known to live by that (leases.ts). */
export const HEARTBEAT_MS = 2_000
/** For connections that are in use when everything ends. */
const END_MS_MAX = 1_000

/** A line that swallows everything is given up after about 20 s, also by the server, which then takes its locks back. */
const KEEP_ALIVE_IDLE_MS = 10_000
const goneWithLine = ['tcp_keepalives_idle=10', 'tcp_keepalives_interval=3', 'tcp_keepalives_count=3', 'tcp_user_timeout=20000']

/** Distinct statements that a connection keeps prepared; more than the read side has. */
const PREPARED_MAX = 200

/** Plans for rows that are found by key, however young the tables' statistics are: a kept plan must suit tables that grow. */
const byKey = ['enable_seqscan=off', 'enable_hashjoin=off', 'enable_mergejoin=off']
/** Pages are read in the order of their index: a bitmap would collect and sort all rows that follow, whatever the limit. */
const inOrder = 'enable_bitmapscan=off'

/**
 * Connections that answer. Planning a read costs Postgres several times what running it does: plans are kept.
 * `onLost`: a connection broke, whether somebody was using it or not.
 */
export function openReaders(connectionString: string, connectionsMax: number, onLost: (error: Error) => void): Database {
  const settings = [`search_path=${READ_SCHEMA}`, `statement_timeout=${STATEMENT_TIMEOUT_MS}`, 'jit=off', ...byKey, inOrder]
  return open(openPool(connectionString, connectionsMax, settings, onLost), preparing(), () => READ_MS_MAX)
}

/** Changes how writers behave. */
export interface WriterOptions {
  onLost?: (error: Error) => void
  /** Bounds every statement. Default: a minute, and an hour where it makes, fills or swaps tables. */
  statementMsMax?: number
}

/** Connections that project into `schema`. Their commits need no disk: a crash loses rows and checkpoint together. */
export function openWriters(connectionString: string, schema: string, { onLost = () => {}, statementMsMax }: WriterOptions = {}): Database {
  const settings = [`search_path=${schema}`, 'synchronous_commit=off', 'jit=off', ...byKey]
  const msMaxOf = (text: string) => statementMsMax ?? (tableStatement.test(text) ? TABLES_MS_MAX : WRITE_MS_MAX)
  return open(openPool(connectionString, 2, settings, onLost), copying, msMaxOf, HEARTBEAT_MS)
}

function openPool(connectionString: string, max: number, settings: readonly string[], onLost: (error: Error) => void): pg.Pool {
  const pool = new pg.Pool({
    connectionString,
    max,
    options: [...settings, ...goneWithLine].map((setting) => `-c ${setting}`).join(' '),
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_IDLE_MS,
    allowExitOnIdle: true,
    types: { getTypeParser: parserOf },
  })
  // Without listeners the loss of a connection would end the process; who uses it hears of it by its query.
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', onLost))
  return pool
}

/** How a pool's connections run a statement. */
type Run = (client: pg.PoolClient, text: string, values: readonly unknown[]) => Promise<pg.QueryResult>

/** How long a statement may take. */
type MsMaxOf = (text: string) => number

const open = (pool: pg.Pool, run: Run, msMaxOf: MsMaxOf, heartbeatMs?: number): Database =>
  new Kysely<unknown>({ dialect: new PostgresDialect({ pool: running(pool, run, msMaxOf, heartbeatMs) }) })

/** The server has not answered in time: the connection was given up, and what became of the statement is not known. */
class DatabaseSilent extends Error {}

/** The pool as Kysely sees it. */
function running(pool: pg.Pool, run: Run, msMaxOf: MsMaxOf, heartbeatMs: number | undefined): PostgresPool {
  const inUse = new Set<pg.PoolClient>()
  return {
    async connect() {
      const since = performance.now()
      const client = await pool.connect()
      inUse.add(client)
      const session = new Session(client, run, msMaxOf, since, heartbeatMs)
      const release = () =>
        session.end((silent) => {
          inUse.delete(client)
          client.release(silent)
        })
      return { query: session.query, release } as unknown as PostgresPoolClient
    },
    async end() {
      // One that runs a statement is cut by this; one that waits for its user says goodbye.
      const impatience = setTimeout(() => inUse.forEach((client) => void client.end().catch(() => undefined)), END_MS_MAX)
      await pool.end()
      clearTimeout(impatience)
    },
  }
}

/** A connection in use. Each statement has a deadline of our own: a server that stands still keeps none of its own. */
class Session {
  readonly #client: pg.PoolClient
  readonly #run: Run
  readonly #msMaxOf: MsMaxOf
  readonly #heart: NodeJS.Timeout | undefined
  #since: number
  #isBusy = false
  #beating: Promise<unknown> | undefined
  #silent: DatabaseSilent | undefined

  constructor(client: pg.PoolClient, run: Run, msMaxOf: MsMaxOf, since: number, heartbeatMs: number | undefined) {
    this.#client = client
    this.#run = run
    this.#msMaxOf = msMaxOf
    this.#since = since
    if (heartbeatMs !== undefined) this.#heart = setInterval(() => this.#beat(), heartbeatMs).unref()
  }

  readonly query = async (text: string, values: readonly unknown[]): Promise<pg.QueryResult> => {
    this.#isBusy = true
    try {
      await this.#beating
      return await this.#runInTime(text, values)
    } finally {
      this.#isBusy = false
    }
  }

  /** Nothing runs on the connection any more when `ended` is called; with an error, it cannot be used again. */
  end(ended: (silent: Error | undefined) => void): void {
    clearInterval(this.#heart)
    if (this.#beating) void this.#beating.then(() => ended(this.#silent))
    else ended(this.#silent)
  }

  /** Between two statements only. In a transaction that has failed it is refused, which is an answer, too. */
  #beat(): void {
    if (this.#isBusy || this.#beating || this.#silent) return
    this.#beating = this.#runInTime('SELECT 1', [])
      .catch(() => undefined)
      .finally(() => {
        this.#beating = undefined
      })
  }

  async #runInTime(text: string, values: readonly unknown[]): Promise<pg.QueryResult> {
    if (this.#silent) throw this.#silent
    const leftMs = Math.max(READ_MS_MIN, this.#since + this.#msMaxOf(text) - performance.now())
    try {
      return await withDeadline(this.#run(this.#client, text, values), leftMs, () => {
        this.#silent = new DatabaseSilent(`The database has not answered for ${Math.round(leftMs)} ms`)
        return this.#silent
      })
    } finally {
      this.#since = performance.now()
    }
  }
}

/** Prepares each statement that has parameters under a name of its own. */
function preparing(): Run {
  const names = new Map<string, string>()
  const nameOf = (text: string): string | undefined => {
    const known = names.get(text)
    if (known !== undefined || names.size >= PREPARED_MAX) return known
    const name = `read_${names.size}`
    names.set(text, name)
    return name
  }
  return (client, text, values) => client.query(values.length === 0 ? { text } : { name: nameOf(text), text, values: [...values] })
}

/** COPY beside the queries. */
const copying: Run = (client, text, values) => (isCopy(text) ? copyIn(client, text, values[0] as Buffer) : client.query(text, [...values]))

const BIGINT = 20

/** Times in ms and counts fit a number. */
const parserOf: typeof pg.types.getTypeParser = ((oid: number, format?: 'text') =>
  oid === BIGINT ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser

// The server goes, has no such database, does not let us in, has no connection left, gave up on a lock or a time-out, or the
// tables are being made.
const lostStates = /^(08|28|3D000|57P0|53|58|25006|40001|40P01|55P03|57014|42P01|3F000|XX000)/
const lostCodes = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOENT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
])
const lostMessage = /connection terminated|not queryable|timeout exceeded when trying to connect|client was closed|connection timeout/i

/** Whether this is the loss of the database or the log, and not a bug. */
export function isLoss(error: unknown): boolean {
  if (error instanceof StoreUnavailable || error instanceof DatabaseSilent) return true
  if (error instanceof AggregateError) return error.errors.some(isLoss)
  if (!(error instanceof Error)) return false
  const { code } = error as { code?: unknown }
  return (typeof code === 'string' && (lostCodes.has(code) || lostStates.test(code))) || lostMessage.test(error.message)
}

const UNDEFINED_COLUMN = '42703'
/** A prepared statement whose rows would now have other columns. */
const FEATURE_NOT_SUPPORTED = '0A000'

/** Whether a table is not what the statement was written for: another version of the program has rebuilt it, or it is a bug. */
export function isOfOtherShape(error: unknown): boolean {
  const { code } = error as { code?: unknown }
  return code === UNDEFINED_COLUMN || code === FEATURE_NOT_SUPPORTED
}

/** An error of a read as a client sees it. */
export function asRefusal(error: unknown): unknown {
  if (error instanceof Refusal || !isLoss(error)) return error
  return unavailable('The read models cannot be reached now: try again.', error)
}

const LOCK_NOT_AVAILABLE = '55P03'
const DEADLOCK_DETECTED = '40P01'

/** True if a statement was given up because others hold locks. */
export function isLockTimeout(error: unknown): boolean {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined
  return code === LOCK_NOT_AVAILABLE || code === DEADLOCK_DETECTED
}
