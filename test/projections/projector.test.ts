import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { EventStore } from '../../src/domain/event-store.js'
import { conversationStream } from '../../src/domain/ids.js'
import { isLoss } from '../../src/projections/database.js'
import { nextStartAt } from '../../src/projections/projector.js'
import { ReadModels } from '../../src/projections/read-models.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { type ReadSide, dumpTables, execute, openReadSide, silent } from '../support/read-side.js'

let postgres: TestPostgres
let side: ReadSide
let others: ReadModels[] = []
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres.stop())
afterEach(async () => {
  for (const other of others) await other.close()
  others = []
  await side.close()
})

async function open(options: Parameters<typeof openReadSide>[1] = {}): Promise<ReadSide> {
  side = await openReadSide(postgres, options)
  return side
}

/** The read models as another process opens them. */
async function openOther(options: { project?: boolean; fanoutOnWriteMax?: number; store?: EventStore } = {}): Promise<ReadModels> {
  const other = await ReadModels.open({
    connectionString: side.connectionString,
    store: side.store,
    logger: silent,
    fanoutOnWriteMax: 500,
    project: false,
    ...options,
  })
  others.push(other)
  return other
}

/** Some of everything. */
async function write(count: number, prefix = 'g'): Promise<void> {
  const { log } = side
  for (let i = 0; i < count; i += 1) {
    const id = `${prefix}${i}`
    await log.created(id, ['alice', 'bob', 'carol'])
    for (let n = 0; n < 5; n += 1) await log.sent(id, n % 2 === 0 ? 'alice' : 'bob', `message ${n}`, { mentions: ['carol'] })
    await log.did(
      id,
      'alice',
      { type: 'ReactionAdded', data: { messageSeq: 1, emoji: '👍' } },
      { type: 'MessageRecalled', data: { messageSeq: 2 } },
    )
    await log.read(id, 'carol', 3, 3)
    await log.marked('carol', id, { pinned: i % 2 === 0 })
    await log.left(id, 'bob')
  }
}

/** A member of an object that is to be called on the object itself. */
function bound(target: object, name: string | symbol): unknown {
  const member = Reflect.get(target, name, target) as unknown
  return typeof member === 'function' ? (member.bind(target) as unknown) : member
}

/** Waits for something that no promise tells of. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  await expect.poll(condition, { interval: 10, timeout: 50_000 }).toBe(true)
}

describe('a process that stands still with the lead', () => {
  const LEAD = "SELECT pg_advisory_lock(hashtextextended('convolog read models: leader', 0))"

  /** What is open on its session when it stops. */
  const doings: [string, (client: pg.Client) => Promise<unknown>][] = [
    ['nothing', async () => {}],
    [
      'a transaction that has moved the checkpoints',
      (client) => client.query("BEGIN; UPDATE read.checkpoints SET position = position; UPDATE read.inbox SET user_id = 'nobody'"),
    ],
  ]

  test.each(doings)('with %s under way, loses it to the next, which goes on from the checkpoint', { timeout: 60_000 }, async (_, doing) => {
    await open({ project: false })
    const still = new pg.Client({ connectionString: side.connectionString })
    const lost = new Promise((resolve) => still.on('error', resolve))
    await still.connect()
    await still.query(LEAD)
    await doing(still)
    await write(2)
    const next = await openOther({ project: true })
    await next.waitFor(side.log.position, 30_000)
    await lost
    await expect(still.query('SELECT 1')).rejects.toThrow()
    const tables = await dumpTables(side.connectionString)
    await next.replay()
    expect(await dumpTables(side.connectionString)).toEqual(tables)
  })

  test('is not taken for one that runs, which shows that it lives, however little happens', { timeout: 60_000 }, async () => {
    await open()
    await side.settled()
    const client = new pg.Client({ connectionString: side.connectionString })
    await client.connect()
    const findSignOfLife = async () => {
      const { rows } = await client.query<{ at: string }>(
        `SELECT state_change::text AS at FROM pg_stat_activity JOIN pg_locks USING (pid)
         WHERE locktype = 'advisory' AND objsubid = 1 AND datname = current_database()`,
      )
      return rows[0]?.at
    }
    const seen = new Set<string | undefined>()
    await until(async () => seen.add(await findSignOfLife()).size > 3)
    await client.end()
    expect(side.readModels.status()!.state).toBe('projecting')
  })
})

describe('waiting', () => {
  test('ends when the tables are at the position', async () => {
    await open()
    await side.log.created('g', ['alice', 'bob'])
    await side.readModels.waitFor(side.log.position)
    expect(side.readModels.position >= side.log.position).toBe(true)
    expect((await side.readModels.members.list('g', { limit: 5 })).items).toHaveLength(2)
  })

  test('ends with unavailable when they do not get there', async () => {
    await open()
    await expect(side.readModels.waitFor('9'.repeat(30), 50)).rejects.toMatchObject({ code: 'unavailable' })
  })

  test('works where another process projects', async () => {
    await open()
    const other = await openOther()
    const waiting = other.waitFor('0'.repeat(15) + '1', 10_000)
    await side.log.created('g', ['alice', 'bob'])
    await waiting
    await other.waitFor(side.log.position)
    expect((await other.members.list('g', { limit: 5 })).items).toHaveLength(2)
    expect(other.status()).toBeUndefined()
  })
})

describe('one process projects', () => {
  test('and another takes over when it goes', async () => {
    await open()
    const standby = await openOther({ project: true })
    await until(() => standby.status()?.state === 'standby')
    await until(() => side.readModels.status()?.state === 'projecting')
    await side.readModels.close()
    await side.log.created('g', ['alice', 'bob'])
    await standby.waitFor(side.log.position, 10_000)
    expect(standby.status()).toMatchObject({ state: 'projecting', error: null })
  })

  test('and goes on where it was when its connections are killed', async () => {
    await open()
    await write(3)
    await side.settled()
    for (let i = 0; i < 5; i += 1) {
      const writing = write(4, `h${i}-`)
      await execute(
        side.connectionString,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_stat_activity.pid AND l.locktype = 'advisory')`,
      )
      await writing
    }
    await side.settled()
    const live = await dumpTables(side.connectionString)
    await side.readModels.replay()
    await side.settled()
    expect(await dumpTables(side.connectionString)).toEqual(live)
  })

  test('and says so when an event cannot be projected', async () => {
    await open()
    await side.log.created('g', ['alice', 'bob'])
    await side.settled()
    const errors: string[] = []
    const other = await ReadModels.open({
      connectionString: side.connectionString,
      store: side.store,
      fanoutOnWriteMax: 500,
      project: true,
      logger: { ...silent, error: (details) => errors.push(String((details as { err: unknown }).err)) },
    })
    others.push(other)
    await side.readModels.close()
    await side.log.self('alice', { type: 'Unheard', data: {} } as never)
    await until(() => other.status()?.state === 'failing')
    expect(other.status()?.error).toMatch(/Unheard, user-alice 0/)
    expect(errors[0]).toMatch(/Unheard/)
    await expect(other.waitFor(side.log.position, 50)).rejects.toMatchObject({ code: 'unavailable' })
    expect((await other.members.list('g', { limit: 5 })).items).toHaveLength(2)
  })

  test('through the loss of the whole server', async () => {
    await open()
    await write(2)
    await side.settled()
    await postgres.kill()
    await expect(side.readModels.unreadCounts.list('carol')).rejects.toMatchObject({ code: 'unavailable' })
    await until(() => side.readModels.status()?.state === 'lost')
    await postgres.restart()
    await until(() => side.readModels.status()?.state === 'projecting')
    // The log has connections of its own, which come back when they come back.
    const created = side.log.propose(
      conversationStream('new'),
      { userId: 'carol' },
      { type: 'ConversationCreated', data: { type: 'group', joinPolicy: 'open', members: [{ userId: 'carol', role: 'owner' }] } },
    )
    await until(() =>
      side.store.append(created).then(
        () => true,
        () => false,
      ),
    )
    await side.settled()
    expect((await side.readModels.unreadCounts.list('carol')).conversations).toHaveLength(2)
  })
})

test('a process that starts does not wait for ever for whoever has locked the tables, and says what to do', {
  timeout: 60_000,
}, async () => {
  await open()
  const holder = new pg.Client({ connectionString: side.connectionString })
  await holder.connect()
  await holder.query('BEGIN; LOCK TABLE read.checkpoints')
  await expect(openOther()).rejects.toThrow(/^The schema read .* is locked by another session: end that session, .+\.$/)
  await holder.end()
})

test('a process that starts does not wait for those who read', async () => {
  await open()
  await execute(
    side.connectionString,
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 2000', current_database()); END $$",
  )
  const reader = new pg.Client({ connectionString: side.connectionString })
  await reader.connect()
  try {
    await reader.query('BEGIN')
    await reader.query('SELECT FROM read.snapshots, read.checkpoints, read.messages')
    await openOther()
  } finally {
    await reader.end()
  }
})

test.each([
  ['not there', (url: URL) => (url.pathname = '/nowhere')],
  ['not for this user', (url: URL) => (url.username = 'nobody')],
])('a database that is %s is a loss and no bug', async (_, change) => {
  await open()
  const url = new URL(side.connectionString)
  change(url)
  const opened = ReadModels.open({ connectionString: url.href, store: side.store, logger: silent, fanoutOnWriteMax: 500, project: false })
  await expect(opened).rejects.toSatisfy(isLoss)
})

describe('a replay', () => {
  test('gives the same tables, byte for byte', async () => {
    await open({ fanoutOnWriteMax: 2 })
    await write(5)
    await side.settled()
    const live = await dumpTables(side.connectionString)
    const said: string[] = []
    await side.readModels.replay({ onProgress: ({ state, events }) => said.push(`${state} ${events}`) })
    expect(await dumpTables(side.connectionString)).toEqual(live)
    expect(said.at(-1)).toBe('done 55')
    await side.log.created('later', ['alice'])
    await side.readModels.waitFor(side.log.position)
  })

  test('of dropped tables, by a server that starts', async () => {
    await open()
    await write(5)
    await side.settled()
    const live = await dumpTables(side.connectionString)
    await side.readModels.close()
    await execute(side.connectionString, 'DROP SCHEMA read CASCADE')
    const other = await openOther({ project: true })
    await other.waitFor(side.log.position, 20_000)
    await until(() =>
      other.unreadCounts.list('carol').then(
        () => true,
        () => false,
      ),
    )
    expect(await dumpTables(side.connectionString)).toEqual(live)
  })

  test('of tables that are dropped under a running server', async () => {
    await open()
    await write(5)
    await side.settled()
    const live = await dumpTables(side.connectionString)
    await execute(side.connectionString, 'DROP SCHEMA read CASCADE')
    await side.log.created('last', ['alice'])
    await until(() =>
      side.readModels.members.list('last', { limit: 1 }).then(
        ({ items }) => items.length === 1,
        () => false,
      ),
    )
    await execute(
      side.connectionString,
      "DELETE FROM read.conversations WHERE id = 'last'; DELETE FROM read.members WHERE conversation_id = 'last'",
    )
    expect((await dumpTables(side.connectionString)).messages).toEqual(live.messages)
  })

  test('of one projection leaves the others alone', async () => {
    await open()
    await write(5)
    await side.settled()
    const live = await dumpTables(side.connectionString)
    for (const projection of ['conversations', 'history', 'inbox', 'unread-counts', 'receipts', 'users'])
      await side.readModels.replay({ projection })
    await side.settled()
    expect(await dumpTables(side.connectionString)).toEqual(live)
    expect(() => side.readModels.replay({ projection: 'nonsense' })).toThrow(
      /There is no projection "nonsense"; there are conversations, history/,
    )
  })

  test('by another process goes beside a server while events keep coming', async () => {
    await open()
    await write(20)
    const other = await openOther()
    let writing = true
    const coming = (async () => {
      for (let i = 0; writing; i += 1) await write(1, `live${i}-`)
    })()
    const served: unknown[] = []
    const reading = (async () => {
      while (writing) served.push((await side.readModels.inbox.list('alice', { limit: 1 })).items.length)
    })()
    for (const projection of ['inbox', undefined, 'history']) await other.replay(projection === undefined ? {} : { projection })
    writing = false
    await Promise.all([coming, reading])
    expect(served.every((length) => length === 1)).toBe(true)
    await side.settled()
    const live = await dumpTables(side.connectionString)
    await other.replay()
    await side.settled()
    expect(await dumpTables(side.connectionString)).toEqual(live)
  })

  test('misses nothing that is written after its look at the end of the log', async () => {
    await open()
    await write(2)
    await side.settled()
    let isWritten = false
    const readAll: EventStore['readAll'] = async (...asked) => {
      const page = await side.store.readAll(...asked)
      if (page.events.length === 0 && !isWritten) {
        isWritten = true
        await side.log.sent('g0', 'alice', 'late')
        await side.settled()
      }
      return page
    }
    const other = await openOther({
      store: new Proxy(side.store, { get: (store, name) => (name === 'readAll' ? readAll : bound(store, name)) }),
    })
    await other.replay()
    expect(isWritten).toBe(true)
    await side.settled()
    expect((await dumpTables(side.connectionString)).messages!.filter((row) => row.includes('late'))).toHaveLength(1)
  })

  test('does not meet another', async () => {
    await open()
    await write(20)
    const results = await Promise.allSettled([side.readModels.replay(), side.readModels.replay()])
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(results.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'unavailable' } })
  })

  test('is made when a setting changed or the shape is of another version', async () => {
    await open({ fanoutOnWriteMax: 2 })
    await write(5)
    await side.settled()
    await side.readModels.close()
    const written = async () => (await dumpTables(side.connectionString)).inbox_conversations!.filter((row) => row.endsWith(',t)')).length
    expect(await written()).toBe(5)
    await side.log.created('large', ['a', 'b', 'c'])
    const other = await openOther({ project: true, fanoutOnWriteMax: 1 })
    await until(async () => other.status()?.rebuilding.length === 0 && (await written()) === 0)
    await other.waitFor(side.log.position, 10_000)
    await other.close()
    await execute(side.connectionString, "UPDATE read.checkpoints SET version = 99 WHERE projection = 'receipts'; TRUNCATE read.receipts")
    const reader = await openOther()
    await expect(reader.members.list('large', { limit: 5 })).rejects.toMatchObject({ code: 'unavailable' })
    const third = await openOther({ project: true, fanoutOnWriteMax: 1 })
    await until(() =>
      reader.receipts.list('g0', { limit: 5 }).then(
        ({ items }) => items[0]?.readSeq === 5,
        () => false,
      ),
    )
    expect(third.status()).toMatchObject({ state: 'projecting' })
  })

  test('by another version of the program ends the reads of this one', async () => {
    await open()
    await write(1)
    await side.settled()
    await side.readModels.close()
    const moveVersion = async (projection: string, by: 1 | -1, change: string) =>
      execute(side.connectionString, `UPDATE read.checkpoints SET version = version + ${by} WHERE projection = '${projection}'; ${change}`)
    const rebuilt = (projection: string, change: string) => moveVersion(projection, 1, change)
    const rebuiltByThisOne = (projection: string, change: string) => moveVersion(projection, -1, change)
    const findProfile = (reader: ReadModels) => reader.users.findProfile('alice')
    const listReceipts = (reader: ReadModels) => reader.receipts.list('g0', { limit: 5 })
    const refusal = { code: 'unavailable' }

    const reader = await openOther()
    await findProfile(reader)
    await rebuilt('users', 'ALTER TABLE read.profiles ADD pronouns text')
    await expect(findProfile(reader)).rejects.toMatchObject(refusal)
    await rebuiltByThisOne('users', 'ALTER TABLE read.profiles DROP pronouns')
    await findProfile(reader)

    await listReceipts(reader)
    await rebuilt('receipts', 'ALTER TABLE read.receipts RENAME read_seq TO read_until')
    await expect(listReceipts(reader)).rejects.toMatchObject(refusal)
    await rebuiltByThisOne('receipts', 'ALTER TABLE read.receipts RENAME read_until TO read_seq')
    await listReceipts(reader)

    // Its statements still work, and may say something else.
    await rebuilt('inbox', '')
    await until(() =>
      listReceipts(reader).then(
        () => false,
        (error: unknown) => (error as { code?: unknown }).code === 'unavailable',
      ),
    )
  })
})

test.each([
  ['as long as it took', 40, 1_000 + 40 + 40],
  ['but no longer than half a second', 300_000, 1_000 + 300_000 + 500],
])('after a transaction the projector rests %s', (_, tookMs, nextAt) => {
  expect(nextStartAt({ size: 1, startedAt: 1_000, endedAt: 1_000 + tookMs })).toBe(nextAt)
})
