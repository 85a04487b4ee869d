import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { App } from '../../src/app.js'
import { conversationStream } from '../../src/domain/ids.js'
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { startAppServer } from '../support/app-server.js'
import { LogWriter } from '../support/log-writer.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { silent } from '../support/read-side.js'
import { User, World, text, unique } from '../support/world.js'

/** Two servers in this process on one database, so that each takes the log for shared. The first projects. */
let postgres: TestPostgres
let connectionString: string
let operator: pg.Client
const apps: App[] = []
let first: World
let second: World

const start = async () => {
  const app = await startAppServer(connectionString, { env: { DATABASE_URL: connectionString } })
  apps.push(app)
  return new World(app.url)
}

beforeAll(async () => {
  postgres = await startTestPostgres()
  connectionString = await postgres.createDatabase()
  operator = new pg.Client({ connectionString })
  await operator.connect()
  first = await start()
  second = await start()
}, 120_000)
afterEach(async () => {
  await operator.query('ROLLBACK')
  expect([first, second].flatMap((world) => world.endDevices())).toEqual([])
})
afterAll(async () => {
  await operator?.end()
  for (const app of apps.reverse()) await app.stop()
  await postgres?.stop()
})

const on = (world: World, { id }: User) => new User(world, id)
/** The projector can write nothing until the test is over. */
const holdProjector = async () => {
  await operator.query('BEGIN')
  await operator.query('SELECT FROM read.checkpoints FOR UPDATE')
}
/** The same, and reads of the table wait until `releaseReads`. */
const holdReads = async (table: string) => {
  await holdProjector()
  await operator.query('SAVEPOINT reads')
  await operator.query(`LOCK TABLE read.${table} IN ACCESS EXCLUSIVE MODE`)
}
const releaseReads = () => operator.query('ROLLBACK TO SAVEPOINT reads')
const release = () => operator.query('ROLLBACK')
/** A recall by another server, which need not ask the tables here whose message it is. */
const recallElsewhere = async (conversationId: string, { id }: User, messageSeq: number) => {
  const store = await PostgresEventStore.open({ connectionString, logger: silent })
  try {
    const writer = new LogWriter(store)
    await writer.goOnBehind(conversationStream(conversationId))
    return await writer.did(conversationId, id, { type: 'MessageRecalled', data: { messageSeq } })
  } finally {
    await store.close()
  }
}
const waiting = async (count: number) => {
  const counted = `SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'`
  while ((await operator.query<{ n: number }>(counted)).rows[0]!.n < count) await new Promise((resolve) => setTimeout(resolve, 10))
}

test.each([
  ['messages', 'messages'],
  ['members', 'members'],
  ['receipts', 'members'],
])('a slow read of %s is refused to somebody who was removed meanwhile', async (list, table) => {
  const [alice, bob] = first.users('alice', 'bob')
  const group = await alice.group([bob])
  await bob.get(`/v1/conversations/${group.conversationId}/messages?minPosition=${(await alice.send(group)).position}`)
  await holdReads(table)
  const reading = bob.call('GET', `/v1/conversations/${group.conversationId}/${list}`)
  await waiting(1)
  await alice.remove(group, bob)
  await alice.send(group, 'SECRET')
  await releaseReads()
  expect((await reading).status).toBe(404)
})

test.each(['a page of messages', 'one message'])('a slow read of %s does not show what was recalled meanwhile', async (what) => {
  const [alice, bob] = first.users('alice', 'bob')
  const group = await alice.group([bob])
  const { seq, position } = await alice.send(group, 'SECRET')
  const path = `/v1/conversations/${group.conversationId}/messages`
  await bob.get(`${path}?minPosition=${position}`)
  const device = await alice.connect()
  await holdReads('messages')
  const reading = bob.call('GET', what === 'one message' ? `${path}/${seq}` : path)
  await waiting(1)
  // The device hears of it from the feed that the server follows, so the server knows.
  await device.waitForSeq(group.conversationId, await recallElsewhere(group.conversationId, alice, seq))
  await releaseReads()
  const { status, body } = await reading
  expect([status, JSON.stringify(body).includes('SECRET')]).toEqual([200, false])
})

test('what was recalled is not shown by tables that have not heard of it, when memory has forgotten it too', async () => {
  const alice = first.user('alice')
  const group = await alice.group()
  const device = await alice.connect()
  const { seq, position } = await alice.send(group, 'SECRET')
  const path = `/v1/conversations/${group.conversationId}/messages`
  await alice.get(`${path}?minPosition=${position}`)
  await holdProjector()
  await alice.recall(group, seq)
  // The window is of 2,000 events at most.
  const send = () =>
    device.ask('message.send', { conversationId: group.conversationId, clientMessageId: unique('m'), content: text('more') })
  for (let n = 0; n < 2_000; n += 100) await Promise.all(Array.from({ length: 100 }, send))
  const answers = await Promise.all([alice.call('GET', `${path}/${seq}`), alice.call('GET', `${path}?around=${seq}&limit=1`)])
  expect(answers.map(({ status }) => status)).toEqual([503, 503])
  await release()
  expect(await alice.get(`${path}/${seq}`)).toMatchObject({ content: null })
})

test('a server that has just started shows no rows of before, to nobody who was removed and of nothing that was recalled', async () => {
  const [alice, bob, carol] = first.users('alice', 'bob', 'carol')
  const group = await alice.group([bob, carol])
  const { seq, position } = await alice.send(group, 'SECRET')
  expect(JSON.stringify(await bob.get(`/v1/inbox?minPosition=${position}`))).toContain('SECRET')
  await holdProjector()
  await alice.recall(group, seq)
  await alice.remove(group, bob)
  const third = await start()
  const asked = [bob, carol].flatMap((user) => ['/v1/inbox', '/v1/unread'].map((path) => on(third, user).call('GET', path)))
  expect((await Promise.all(asked)).map(({ status }) => status)).toEqual([503, 503, 503, 503])
  await release()
  expect(await on(third, bob).get<{ items: unknown[] }>('/v1/inbox')).toMatchObject({ items: [] })
  expect(await on(third, carol).get<{ items: unknown[] }>('/v1/inbox')).toMatchObject({ items: [{ lastMessage: { preview: null } }] })
})

test('what was written on one server is refused on the other by nobody who has not heard of it yet', async () => {
  const [alice, bob] = first.users('alice', 'bob')
  const group = await alice.group([bob])
  const there = on(second, bob)
  const device = await there.connect()
  await there.get(`/v1/conversations/${group.conversationId}`)
  for (let n = 0; n < 30; n += 1) {
    const { seq } = await alice.send(group)
    const [read, frame] = await Promise.all([
      there.call('POST', `/v1/conversations/${group.conversationId}/read`, { seq }),
      device.request('read', { conversationId: group.conversationId, seq }),
    ])
    expect([read.status, frame.type]).toEqual([200, 'ok'])
  }
  for (let n = 0; n < 10; n += 1) {
    const newcomer = first.user('newcomer')
    expect((await on(second, newcomer).call('GET', `/v1/conversations/${group.conversationId}`)).status).toBe(404)
    await alice.add(group, newcomer)
    expect((await on(second, newcomer).call('PATCH', `/v1/inbox/${group.conversationId}`, { pinned: true })).status).toBe(200)
  }
})

test('a former member is told nowhere how far the conversation went on', async () => {
  const [alice, bob] = first.users('alice', 'bob')
  const [group, other] = [await alice.group([bob]), await bob.group()]
  const { position } = (await bob.connect({ deviceId: 'phone' })).hello!
  await alice.send(group)
  const removed = await alice.remove(group, bob)
  await alice.sendMany(group, 5)
  const device = await bob.connect({ position, deviceId: 'phone' })
  const event = await device.waitForEvent(({ type }) => type === 'MemberRemoved', 'the removal')
  expect([event.seq, event.head]).toEqual([removed.seq, removed.seq])
  await device.waitForSeq(other.conversationId, (await bob.send(other)).seq)
  expect(device.frames.filter(({ type, conversationId }) => type === 'head' && conversationId === group.conversationId)).toEqual([])
})

test('a page of messages ends before it is too large, and says that there is more', async () => {
  const alice = first.user('alice')
  const group = await alice.group()
  let last = ''
  for (let n = 0; n < 20; n += 1)
    ({ position: last } = await alice.write<{ position: string }>('POST', `/v1/conversations/${group.conversationId}/messages`, {
      clientMessageId: unique('m'),
      content: text('€'.repeat(10_000)),
    }))
  const path = `/v1/conversations/${group.conversationId}`
  interface Page {
    items: { seq: number }[]
    more: boolean
  }
  const newest = await alice.get<Page>(`${path}/messages?limit=200&minPosition=${last}`)
  expect([newest.items.at(0)!.seq, newest.items.at(-1)!.seq, newest.more]).toEqual([4, 20, true])
  const events = await alice.get<Page>(`${path}/events?limit=200`)
  expect([events.items.at(-1)!.seq, events.more]).toEqual([17, true])
  const rest = await alice.get<Page>(`${path}/events?limit=200&after=17`)
  expect([rest.items.map(({ seq }) => seq), rest.more]).toEqual([[18, 19, 20], false])
})
