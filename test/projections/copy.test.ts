import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { CopyRows, copyRows } from '../../src/projections/copy.js'
import { type Database, isLoss, openWriters } from '../../src/projections/database.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { execute } from '../support/read-side.js'

let postgres: TestPostgres
let connectionString: string
let db: Database
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres.stop())
beforeEach(async () => {
  connectionString = await postgres.createDatabase()
  await execute(connectionString, 'CREATE TABLE notes (id integer PRIMARY KEY, at bigint, text text)')
  db = openWriters(connectionString, 'public')
})
afterEach(() => db.destroy())

const copy = (target: Database, ...ids: number[]) =>
  copyRows(
    target,
    'notes',
    ['id', 'at', 'text'],
    ids.map((id) => new CopyRows().row(3).integer(id).bigint(-1).text(undefined)),
  )

const idsIn = async (target: Database) =>
  (await sql<{ id: number }>`SELECT id FROM notes ORDER BY id`.execute(target)).rows.map(({ id }) => id)

test('rows that are refused take their transaction with them, and the connection goes on', async () => {
  await db.connection().execute(async (connection) => {
    const refused = connection.transaction().execute(async (trx) => {
      await copy(trx, 1)
      await copy(trx, 2, 2)
    })
    await expect(refused).rejects.toMatchObject({ code: '23505' })
    await connection.transaction().execute((trx) => copy(trx, 3, 4))
    expect(await idsIn(connection)).toEqual([3, 4])
  })
})

test('a connection that is lost while rows are on their way is a loss, and the next one is another', async () => {
  await db.connection().execute(async (holder) => {
    await sql`BEGIN`.execute(holder)
    await sql`LOCK TABLE notes`.execute(holder)
    const lost = expect(copy(db, 1)).rejects.toSatisfy(isLoss)
    await expect
      .poll(async () => {
        const waiting = sql`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'notes'::regclass`
        return (await waiting.execute(holder)).rows.length
      })
      .toBe(1)
    await lost
    await sql`COMMIT`.execute(holder)
  })
  await copy(db, 2)
  expect(await idsIn(db)).toEqual([2])
})
