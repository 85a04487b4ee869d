import pg from 'pg'
import type { EventStore } from '../../src/domain/event-store.js'
import type { Logger } from '../../src/domain/logger.js'
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { ReadModels, type ReadModelsOptions } from '../../src/projections/read-models.js'
import { LogWriter } from './log-writer.js'
import type { TestPostgres } from './postgres.js'

export const silent: Logger = { info() {}, warn() {}, error() {} }

/** A log, its read models and somebody who writes, in a database of their own. */
export interface ReadSide {
  connectionString: string
  store: EventStore
  log: LogWriter
  readModels: ReadModels
  /** All that was written is projected. */
  settled(): Promise<void>
  close(): Promise<void>
}

export async function openReadSide(postgres: TestPostgres, options: Partial<ReadModelsOptions> = {}): Promise<ReadSide> {
  const connectionString = await postgres.createDatabase()
  const store = await PostgresEventStore.open({ connectionString })
  const readModels = await ReadModels.open({ connectionString, store, logger: silent, fanoutOnWriteMax: 500, project: true, ...options })
  const log = new LogWriter(store)
  return {
    connectionString,
    store,
    log,
    readModels,
    settled: async () => readModels.waitFor(await store.head(), 30_000),
    close: async () => {
      await readModels.close()
      await store.close()
    },
  }
}

const keyColumns = `
  SELECT c.relname AS name, array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum)) AS key
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
  WHERE n.nspname = 'read' AND NOT c.relispartition AND c.relname NOT IN ('snapshots', 'checkpoints') GROUP BY c.relname ORDER BY c.relname`

/** Every row of every read model, as Postgres writes it, by primary key. */
export async function dumpTables(connectionString: string): Promise<Record<string, string[]>> {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    const tables = (await client.query<{ name: string; key: string[] }>(keyColumns)).rows
    const dump: Record<string, string[]> = {}
    for (const { name, key } of tables) {
      const { rows } = await client.query<{ row: string }>(`SELECT t::text AS row FROM read.${name} t ORDER BY ${key.join(', ')}`)
      dump[name] = rows.map(({ row }) => row)
    }
    return dump
  } finally {
    await client.end()
  }
}

/** Runs one statement as an operator would. */
export async function execute(connectionString: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
