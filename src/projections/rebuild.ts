/** Builds projections anew from the log, beside the live ones, and swaps them in one transaction. */
import { sql } from 'kysely'
import { unavailable } from '../domain/errors.js'
import type { EventStore, LogPage, Position } from '../domain/event-store.js'
import type { Logger } from '../domain/logger.js'
import { texts } from './arrays.js'
import { Batch, type Building, PROJECTED_PREFIXES } from './batch.js'
import { checkpointsTable, furthest, loadCheckpoints, lockCheckpoints } from './checkpoints.js'
import { type Database, READ_SCHEMA, REBUILD_SCHEMA, isLockTimeout, openWriters } from './database.js'
import { tryLease } from './leases.js'
import type { Projection } from './projection.js'

export interface RebuildProgress {
  /** Events applied so far. */
  events: number
  eventsPerSecond: number
  /** Of the log, from 0 to 1; undefined where the store's positions do not tell. */
  done: number | undefined
  leftMs: number | undefined
  state: 'reading' | 'indexing' | 'swapping' | 'done'
}

export interface RebuildOptions {
  connectionString: string
  store: EventStore
  logger: Logger
  /** All of them. */
  projections: readonly Projection[]
  /** The names of those to build; default: all. */
  only?: readonly string[] | undefined
  onProgress?: ((progress: RebuildProgress) => void) | undefined
  /** How far along `position` is on the way to `head`, from 0 to 1. Positions are opaque to everybody else. */
  progressOf?: ((position: Position, head: Position) => number | undefined) | undefined
  signal?: AbortSignal | undefined
}

const PAGE_EVENTS = 4_096
const BATCH_EVENTS = 20_000
/** What is left to do while the live projections are held back: what came during a catch-up as short as this. */
const CATCH_UP_SHORT_MS = 500
const LOCK_TIMEOUT_MIN_MS = 200
const LOCK_TIMEOUT_MAX_MS = 3_000
const PROGRESS_INTERVAL_MS = 250
const INDEX_MEMORY = '128MB'
/** Of 3,000 rows each: what counts is found by key, and the usual 30,000 of each partition took longer than the indexes. */
const STATISTICS_TARGET = 10

/**
 * Works beside servers that run and serve, and with none. Readers see the old tables until the swap.
 * @throws {Refusal} unavailable when another rebuild runs
 */
export async function rebuild(options: RebuildOptions): Promise<void> {
  const db = openWriters(options.connectionString, REBUILD_SCHEMA)
  try {
    await db.connection().execute((connection) => new Rebuild(connection, options).run())
  } finally {
    await db.destroy()
  }
}

class Rebuild {
  readonly #db: Database
  readonly #options: RebuildOptions
  readonly #buildings: readonly Building[]
  readonly #isWhole: boolean
  readonly #startedAt = performance.now()
  #position: Position = ''
  #events = 0
  #ahead: { after: Position; page: Promise<LogPage> } | undefined
  #saidAt = 0

  constructor(db: Database, options: RebuildOptions) {
    const { projections, only } = options
    this.#db = db
    this.#options = options
    this.#buildings = projections
      .filter(({ name }) => only === undefined || only.includes(name))
      .map((projection) => ({ projection, settings: projection.settings }))
    this.#isWhole = this.#buildings.length === projections.length
  }

  async run(): Promise<void> {
    if (!(await tryLease(this.#db, 'rebuild'))) throw unavailable('Another rebuild of the read models is running: wait for its end.')
    await this.#createTables()
    await this.#catchUp()
    await this.#createIndexes()
    for (let lockTimeoutMs = LOCK_TIMEOUT_MIN_MS; !(await this.#swap(lockTimeoutMs)); ) {
      lockTimeoutMs = Math.min(2 * lockTimeoutMs, LOCK_TIMEOUT_MAX_MS)
      await this.#catchUp()
    }
    await sql.raw(`DROP SCHEMA ${REBUILD_SCHEMA} CASCADE`).execute(this.#db)
    this.#say('done')
  }

  async #createTables(): Promise<void> {
    await sql.raw(`DROP SCHEMA IF EXISTS ${REBUILD_SCHEMA} CASCADE; CREATE SCHEMA ${REBUILD_SCHEMA};`).execute(this.#db)
    for (const { projection } of this.#buildings) await sql.raw(projection.ddl).execute(this.#db)
  }

  /** And the statistics that the very first reader after the swap needs. */
  async #createIndexes(): Promise<void> {
    this.#say('indexing')
    await sql.raw(`SET maintenance_work_mem = '${INDEX_MEMORY}'`).execute(this.#db)
    for (const { projection } of this.#buildings) await sql.raw(projection.indexes).execute(this.#db)
    await sql.raw(`SET default_statistics_target = ${STATISTICS_TARGET}`).execute(this.#db)
    // A table that is partitioned brings its partitions with it.
    const { rows } = await sql<{ name: string }>`
      SELECT relname AS name FROM pg_class
      WHERE relnamespace = to_regnamespace(${REBUILD_SCHEMA}) AND relkind IN ('r', 'p') AND NOT relispartition`.execute(this.#db)
    await sql.raw(`ANALYZE ${rows.map(({ name }) => name).join(', ')}`).execute(this.#db)
  }

  async #catchUp(): Promise<void> {
    for (;;) {
      const startedAt = performance.now()
      await this.#applyUpTo(await this.#target(), (batch) => this.#db.transaction().execute((trx) => batch.flush(trx)))
      if (performance.now() - startedAt < CATCH_UP_SHORT_MS) return
    }
  }

  /** One that shall stand beside live ones goes no further than they are; all of them together go to the end of the log. */
  async #target(): Promise<Position> {
    if (this.#isWhole) return this.#options.store.head()
    const live = furthest((await loadCheckpoints(this.#db)).values())
    return live === '' ? this.#options.store.head() : live
  }

  /** Reads and folds the next batch while the last one is being written. */
  async #applyUpTo(target: Position, write: (batch: Batch) => Promise<void>): Promise<void> {
    let writing = Promise.resolve()
    try {
      while (this.#position < target) {
        this.#options.signal?.throwIfAborted()
        const batch = await this.#nextBatch(target)
        await writing
        writing = write(batch)
        writing.catch(() => undefined)
        this.#position = batch.position
        this.#events += batch.size
        this.#say('reading', target)
      }
    } finally {
      await writing
    }
  }

  async #nextBatch(target: Position): Promise<Batch> {
    const batch = new Batch(this.#buildings, this.#position)
    while (!batch.isFull(BATCH_EVENTS) && batch.position < target) {
      const page = await this.#nextPage(batch.position)
      for (const event of page.events) if (event.position <= target) batch.add(event)
      const isEnd = page.events.length === 0 && page.position === batch.position
      batch.moveTo(isEnd || page.position > target ? target : page.position)
    }
    return batch
  }

  /** The page after this one is asked for at once. */
  async #nextPage(after: Position): Promise<LogPage> {
    const asked = this.#ahead?.after === after ? await this.#ahead.page : undefined
    // One that was asked for ahead and is empty says where the log ended then: there may be more by now.
    const page = asked !== undefined && asked.position !== after ? asked : await this.#read(after)
    const next = this.#read(page.position)
    next.catch(() => undefined)
    this.#ahead = page.events.length > 0 ? { after: page.position, page: next } : undefined
    return page
  }

  #read(after: Position): Promise<LogPage> {
    return this.#options.store.readAll(after === '' ? undefined : after, { prefixes: PROJECTED_PREFIXES, limit: PAGE_EVENTS })
  }

  /** False: readers or a vacuum were in the way; nothing has changed. */
  async #swap(lockTimeoutMs: number): Promise<boolean> {
    this.#say('swapping')
    const [position, events] = [this.#position, this.#events]
    try {
      await this.#db.transaction().execute(async (trx) => {
        // Holds back whoever projects, in every process: the tables now stand still where the checkpoint says.
        const live = furthest((await lockCheckpoints(trx)).values())
        await this.#applyUpTo(live, (batch) => batch.flush(trx))
        await this.#replaceTables(trx, lockTimeoutMs)
        await this.#moveCheckpoints(trx)
      })
      return true
    } catch (error) {
      this.#position = position
      this.#events = events
      if (isLockTimeout(error)) return false
      throw error
    }
  }

  async #replaceTables(trx: Database, lockTimeoutMs: number): Promise<void> {
    const tables = this.#buildings.flatMap(({ projection }) => projection.tables)
    const { rows } = await sql<{ name: string }>`
      SELECT name FROM unnest(${texts(tables, (table) => `${READ_SCHEMA}.${table}`)}::text[]) AS t(name)
        WHERE to_regclass(name) IS NOT NULL`.execute(trx)
    const old = rows.map(({ name }) => name).join(', ')
    // Shorter than Postgres' look for deadlocks: where readers and this wait for each other, this gives way.
    await sql.raw(`SET LOCAL lock_timeout = ${lockTimeoutMs}`).execute(trx)
    if (old !== '') await sql.raw(`LOCK TABLE ${old} IN ACCESS EXCLUSIVE MODE; DROP TABLE ${old} CASCADE`).execute(trx)
    for (const table of tables) await sql.raw(`ALTER TABLE ${REBUILD_SCHEMA}.${table} SET SCHEMA ${READ_SCHEMA}`).execute(trx)
  }

  async #moveCheckpoints(trx: Database): Promise<void> {
    for (const {
      projection: { name, version, settings },
    } of this.#buildings) {
      await sql`
        INSERT INTO ${checkpointsTable} VALUES (${name}, ${version}, ${settings}, ${this.#position})
        ON CONFLICT (projection) DO UPDATE SET
          version = excluded.version, settings = excluded.settings, position = excluded.position`.execute(trx)
    }
  }

  #say(state: RebuildProgress['state'], head?: Position): void {
    const now = performance.now()
    if (state === 'reading' && now - this.#saidAt < PROGRESS_INTERVAL_MS) return
    this.#saidAt = now
    const elapsedMs = now - this.#startedAt
    const done = head === undefined ? 1 : this.#options.progressOf?.(this.#position, head)
    const leftMs = done === undefined || done === 0 ? undefined : (elapsedMs / done) * (1 - done)
    this.#options.onProgress?.({ events: this.#events, eventsPerSecond: this.#events / (elapsedMs / 1_000), done, leftMs, state })
  }
}
