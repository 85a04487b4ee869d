import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Database, openReaders } from '../../src/projections/database.js'
import {
  MEMBERSHIPS_PAGE,
  type MembershipPage,
  allMembershipsOfUser,
  departuresAfter,
  findSharing,
  membershipsOfUsers,
} from '../../src/projections/memberships.js'
import { listInbox } from '../../src/projections/inbox.js'
import { receiptsAfter } from '../../src/projections/receipts.js'
import { findUnreadCounts } from '../../src/projections/unread-counts.js'
import { CONTACT_OWNERS_PAGE, findContactOwners } from '../../src/projections/users.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { openReadSide } from '../support/read-side.js'

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres.stop())

/** How many conversations the users are in who are asked for. */
const SIZES = [10, 300, 1_500]
const OTHERS = 5_000
const tables = [
  'conversations',
  'members',
  'departures',
  'inbox',
  'inbox_conversations',
  'unread_counts',
  'mentions',
  'receipts',
  'contacts',
]

/** Rows of a user in `count` conversations of its own with somebody else, each with a mention, a cursor and a contact. */
async function fill(sql: pg.Client, userId: string, count: number): Promise<void> {
  const series = `generate_series(1, ${count}) AS g(i), LATERAL (SELECT '${userId}-' || lpad(i::text, 9, '0') AS c, lpad(i::text, 9, '0') AS p) AS n`
  const both = `(VALUES ('${userId}'), ('${userId}-other')) AS u(user_id)`
  await sql.query(`
    INSERT INTO conversations SELECT c, 'group', null, 'invite', false, '{}', 1, '${userId}', null, null, 2, 5, 3, p, 5, 1, 'x', p, 'text' FROM ${series};
    INSERT INTO members SELECT c, user_id, 'member', 0, 0, 1, 0, p FROM ${series}, ${both};
    INSERT INTO inbox SELECT c, user_id, true, p, p, false, false, null FROM ${series}, ${both};
    INSERT INTO inbox_conversations SELECT c, 2, p, true FROM ${series};
    INSERT INTO unread_counts SELECT c, user_id, 0, null, 0 FROM ${series}, ${both};
    INSERT INTO mentions SELECT '${userId}', c, 1 FROM ${series};
    INSERT INTO receipts SELECT c, user_id, 1, 1, 1, 1, 0, null, null, p FROM ${series}, ${both};
    INSERT INTO departures SELECT c || '-left', '${userId}', 1, p FROM ${series};
    INSERT INTO contacts SELECT c, '${userId}', p FROM ${series};`)
}

/** Many users in one conversation each: by them a planner learns that a user has few rows. */
async function fillOthers(sql: pg.Client): Promise<void> {
  await sql.query(`
    INSERT INTO conversations VALUES ('crowd', 'group', null, 'invite', false, '{}', 1, 'x', null, null, ${OTHERS}, 5, 3, '1', 5, 1, 'x', '1', 'text');
    INSERT INTO members SELECT 'crowd', 'w' || i, 'member', 0, 0, 1, 0, '1' FROM generate_series(1, ${OTHERS}) i;
    INSERT INTO inbox SELECT 'crowd', 'w' || i, true, '1', null, false, false, null FROM generate_series(1, ${OTHERS}) i;
    INSERT INTO unread_counts SELECT 'crowd', 'w' || i, 0, null, 0 FROM generate_series(1, ${OTHERS}) i;
    INSERT INTO mentions SELECT 'w' || i, 'crowd', 1 FROM generate_series(1, ${OTHERS}) i;
    INSERT INTO contacts SELECT 'w' || i, 'w' || (i + 1), '1' FROM generate_series(1, ${OTHERS}) i;`)
}

type Statistics = 'empty' | 'stale' | 'fresh'

/** Fills the read models' tables beside statistics that tell of nothing, of the beginning, or of what is there. */
async function givenTables(postgres: TestPostgres, statistics: Statistics): Promise<{ db: Database; close(): Promise<void> }> {
  const side = await openReadSide(postgres, { project: false })
  await side.close()
  const sql = new pg.Client({ connectionString: side.connectionString, options: '-c search_path=read' })
  await sql.connect()
  for (const table of tables) await sql.query(`ALTER TABLE ${table} SET (autovacuum_enabled = false)`)
  const analyze = () => sql.query(`ANALYZE ${tables.join(', ')}`)
  if (statistics === 'stale') {
    await fill(sql, 'first', 10)
    await analyze()
  }
  for (const size of SIZES) await fill(sql, `u${size}`, size)
  await fillOthers(sql)
  if (statistics === 'fresh') await analyze()
  await sql.end()
  const db = openReaders(side.connectionString, 1, () => {})
  return { db, close: () => db.destroy() }
}

/** How many rows a statement looks at, those that it then leaves out too, once its plan is kept. */
async function rowsLookedAt(db: Database, ask: (db: Database) => Promise<unknown>): Promise<number> {
  return db.connection().execute(async (connection) => {
    await connection.executeQuery(raw(`SET plan_cache_mode = force_generic_plan`))
    return connection.transaction().execute(async (trx) => {
      const before = await countLookedAt(trx)
      await ask(trx)
      return (await countLookedAt(trx)) - before
    })
  })
}

/** What this connection has looked at and not yet reported. */
async function countLookedAt(db: Database): Promise<number> {
  const { rows } = await db.executeQuery<{ count: string }>(
    raw(`SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) AS count FROM pg_stat_xact_user_tables WHERE schemaname = 'read'`),
  )
  return Number(rows[0]!.count)
}

const raw = (text: string) => ({ sql: text, parameters: [], query: { kind: 'RawNode' }, queryId: { queryId: text } }) as never

const ownConversations = (userId: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${userId}-${String(i + 1).padStart(9, '0')}`)

/** Page by page, within the transaction that counts rows. */
async function readPages(db: Database, userId: string): Promise<void> {
  for (let after: string | undefined = ''; after !== undefined; ) {
    const [page]: MembershipPage[] = await membershipsOfUsers(db, [userId], after)
    after = page!.more ? page!.conversations.at(-1)!.conversationId : undefined
  }
}

/** Each question, by the user who asks, and how many rows it may look at for one conversation of the user. */
const questions: Record<string, { ask: (db: Database, userId: string, size: number) => Promise<unknown>; rowsEach: number }> = {
  'what a hello needs': { ask: (db, userId) => membershipsOfUsers(db, [userId]), rowsEach: 6 },
  'what a hello of one in many conversations needs': { ask: readPages, rowsEach: 6 },
  'what was left': { ask: (db, userId) => departuresAfter(db, [{ userId, position: '', limit: 10_000 }]), rowsEach: 2 },
  'the receipts that moved': {
    ask: (db, userId, size) => receiptsAfter(db, [{ conversationIds: ownConversations(userId, size), position: '' }]),
    rowsEach: 5,
  },
  'the unread counts': { ask: (db, userId) => findUnreadCounts(db, userId), rowsEach: 6 },
  'whose contact it is': { ask: (db, userId) => findContactOwners(db, [{ userId, after: '' }]), rowsEach: 2 },
  'who of 500 shares a conversation': {
    ask: (db, userId) => findSharing(db, userId, [`${userId}-other`, ...Array.from({ length: 499 }, (_, i) => `w${i}`)]),
    rowsEach: 4,
  },
  'whether one in many conversations shares one': {
    ask: (db, userId) =>
      findSharing(
        db,
        'w1',
        Array.from({ length: 100 }, () => userId),
      ),
    rowsEach: 1,
  },
}

/** Beside what grows with the user's conversations. */
const ROWS_BESIDE = 600

describe.each<Statistics>(['empty', 'stale', 'fresh'])('with %s statistics', (statistics) => {
  let given: Awaited<ReturnType<typeof givenTables>>
  beforeAll(async () => {
    given = await givenTables(postgres, statistics)
  }, 60_000)
  afterAll(() => given.close())

  test.each(Object.keys(questions))('%s costs at most in proportion to the conversations', async (name) => {
    const { ask, rowsEach } = questions[name]!
    for (const size of SIZES) {
      const rows = await rowsLookedAt(given.db, (db) => ask(db, `u${size}`, size))
      expect(rows, `rows looked at for ${size} conversations`).toBeLessThanOrEqual(rowsEach * size + ROWS_BESIDE)
    }
  })

  test('a user in many conversations costs those who are asked for with it no more than a page', async () => {
    const rows = await rowsLookedAt(given.db, (db) => membershipsOfUsers(db, ['w1', 'u1500', 'w2']))
    expect(rows, 'rows looked at').toBeLessThanOrEqual(6 * MEMBERSHIPS_PAGE + ROWS_BESIDE)
    const pages = await membershipsOfUsers(given.db, ['w1', 'u1500', 'w2'])
    expect(pages.map(({ conversations, more }) => [conversations.length, more])).toEqual([
      [1, false],
      [MEMBERSHIPS_PAGE, true],
      [1, false],
    ])
  })

  test('a user in many conversations is given all of them, each with its own', async () => {
    const { conversations } = await allMembershipsOfUser(given.db, 'u1500')
    expect(conversations.map(({ conversationId }) => conversationId)).toEqual(ownConversations('u1500', 1_500))
    expect(conversations.every(({ mentionOrdinals }) => mentionOrdinals.length === 1)).toBe(true)
  })

  test('those who have somebody as a contact are given in pages', async () => {
    const [first] = await findContactOwners(given.db, [{ userId: 'u1500', after: '' }])
    const [second] = await findContactOwners(given.db, [{ userId: 'u1500', after: first!.at(-1)! }])
    expect(first).toHaveLength(CONTACT_OWNERS_PAGE)
    expect([...first!, ...second!]).toEqual(ownConversations('u1500', 1_500))
  })

  test('a page of the inbox costs the same however many conversations there are', async () => {
    const costs: number[] = []
    for (const size of SIZES) costs.push(await rowsLookedAt(given.db, (db) => listInbox(db, `u${size}`, { cursor: undefined, limit: 9 })))
    expect(Math.max(...costs), `rows looked at: ${costs.join(', ')}`).toBeLessThanOrEqual(100)
  })
})
