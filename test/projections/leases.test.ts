import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Database, READ_SCHEMA, openWriters } from '../../src/projections/database.js'
import { tryLease } from '../../src/projections/leases.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'

const SILENT_MS = 50

let postgres: TestPostgres
const closers: (() => Promise<unknown>)[] = []
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
afterAll(() => postgres.stop())

/** A session that holds the lease and does nothing more. */
async function standStill(connectionString: string): Promise<pg.Client> {
  const holder = new pg.Client({ connectionString })
  holder.on('error', () => {})
  await holder.connect()
  closers.push(() => holder.end().catch(() => {}))
  await holder.query("SELECT pg_advisory_lock(hashtextextended('convolog read models: test', 0))")
  return holder
}

/** Tries in a session of its own until the silence of the holder is long enough to be ended. */
async function tryUntilSilent(connectionString: string): Promise<boolean> {
  const writers = openWriters(connectionString, READ_SCHEMA)
  closers.push(() => writers.destroy())
  return writers.connection().execute(async (db: Database) => {
    for (const until = performance.now() + 5 * SILENT_MS; performance.now() < until; )
      if (await tryLease(db, 'test', SILENT_MS)) return true
    return false
  })
}

test('a lease of a session that stands still goes to the next', async () => {
  const connectionString = await postgres.createDatabase()
  await standStill(connectionString)
  await expect.poll(() => tryUntilSilent(connectionString)).toBe(true)
})

test("a lease is left to another role's session that this one may not end", async () => {
  const connectionString = await postgres.createDatabase()
  const holder = await standStill(connectionString)
  await holder.query('DROP ROLE IF EXISTS onlooker; CREATE ROLE onlooker LOGIN; GRANT pg_read_all_stats TO onlooker')
  const asOnlooker = Object.assign(new URL(connectionString), { username: 'onlooker' }).href
  expect(await tryUntilSilent(asOnlooker)).toBe(false)
  await holder.query('SELECT 1')
})
