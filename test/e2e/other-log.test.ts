import { afterEach, expect, test } from 'vitest'
import { replay } from '../../src/commands/replay.js'
import { loadConfig } from '../../src/config.js'
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { startAppServer } from '../support/app-server.js'
import { findBrokenLink } from '../support/hash-chain.js'
import { keepLog, putLogBack } from '../support/log-copies.js'
import { startLossyProxy } from '../support/lossy-proxy.js'
import { LogWriter } from '../support/log-writer.js'
import { startLog, withoutLog } from '../support/logs.js'
import { Node } from '../support/nodes.js'
import { LogBook } from '../support/notes.js'
import { startTestPostgres } from '../support/postgres.js'
import { type Conversation, type Sent, User, World, eventually, text } from '../support/world.js'

const OTHER_LOG =
  'warn: The read models and snapshots are not of this log, which was begun anew or restored, or they are of an earlier version: they are built anew'

const started: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const stop of started.splice(0).reverse()) await stop()
})

/** One life of a server on a database, in this process. */
interface Life {
  world: World
  lines: string[]
  end(): Promise<void>
}

async function live(connectionString: string, env: Record<string, string> = {}): Promise<Life> {
  const logger = new LogBook()
  const app = await startAppServer(connectionString, { env: { DATABASE_URL: connectionString, ...env }, logger })
  let isOver = false
  const end = async () => {
    if (!isOver) await app.stop()
    isOver = true
  }
  started.push(end)
  return { world: new World(app.url), lines: logger.lines, end }
}

async function openDatabase(): Promise<string> {
  const postgres = await startTestPostgres()
  started.push(() => postgres.stop())
  return postgres.createDatabase()
}

/** The same person in another life. */
const of = ({ world }: Life, { id }: User) => new User(world, id)

const sendAs = (user: User, { conversationId }: Conversation, clientMessageId: string, words: string) =>
  user.call<Sent & { code?: string }>('POST', `/v1/conversations/${conversationId}/messages`, { clientMessageId, content: text(words) })

async function sendMany(user: User, conversation: Conversation, prefix: string, count: number): Promise<Sent[]> {
  const sent: Sent[] = []
  for (let n = 0; n < count; n += 1) sent.push((await sendAs(user, conversation, `${prefix}-${n}`, `${prefix} ${n}`)).body)
  return sent
}

/** Waits until reads are answered again. */
const rebuilt = (user: User) =>
  eventually(async () => (await user.call('GET', '/v1/inbox')).status === 200, 'the read models to be built', 240_000)

interface Tokens {
  resume: string
  minPosition: string
  cursors: Record<string, string>
}

/** One of each kind that a client may keep. */
async function takeTokens(alice: User, conversation: Conversation, written: Sent): Promise<Tokens> {
  const cursors: Record<string, string> = {}
  const { conversationId } = conversation
  for (const name of ['bob', 'carol']) {
    await alice.write('PUT', `/v1/contacts/${name}`)
    await alice.write('PUT', `/v1/blocks/not-${name}`)
  }
  await alice.group()
  const { position } = await alice.write('POST', `/v1/conversations/${conversationId}/read`, { seq: written.seq })
  const conversationLists = ['members', 'receipts'].map((list) => `conversations/${conversationId}/${list}`)
  for (const path of ['inbox', 'contacts', 'blocks', ...conversationLists].map((list) => `/v1/${list}`))
    cursors[path] = (await alice.get<{ nextCursor: string }>(`${path}?limit=1&minPosition=${position}`)).nextCursor
  const device = await alice.connect({ deviceId: 'phone' })
  const resume = device.hello!.position!
  device.terminate()
  return { resume, minPosition: position, cursors }
}

async function expectTokensRefused(alice: User, tokens: Tokens): Promise<void> {
  const device = await alice.connect({ deviceId: 'phone', position: tokens.resume })
  expect(device.hello).toMatchObject({ recovered: false, reason: 'other_log' })
  device.terminate()
  expect(await alice.call('GET', `/v1/unread?minPosition=${tokens.minPosition}`)).toMatchObject({
    status: 400,
    body: { code: 'invalid_request', errors: [{ field: 'minPosition' }] },
  })
  for (const [path, cursor] of Object.entries(tokens.cursors)) {
    const { status, body } = await alice.call('GET', `${path}?limit=1&cursor=${cursor}`)
    expect([path, status, body]).toMatchObject([path, 400, { code: 'invalid_request', errors: [{ field: 'cursor' }] }])
  }
}

/** The texts of a conversation, by its history; as of `position` or later. */
async function messagesOf(alice: User, { conversationId }: Conversation, position?: string): Promise<string[]> {
  const shown = position === undefined ? '' : `&minPosition=${position}`
  const path = `/v1/conversations/${conversationId}/messages?limit=200${shown}`
  const { items } = await alice.get<{ items: { content: { text: string } }[] }>(path)
  return items.map(({ content }) => content.text)
}

/** Checks all streams: revisions without a hole, each event chained to the one before. */
async function expectWholeChains(connectionString: string): Promise<void> {
  const store = await PostgresEventStore.open({ connectionString })
  try {
    const { events } = await store.readAll(undefined, { limit: 10_000 })
    for (const stream of new Set(events.map((event) => event.stream)))
      expect(findBrokenLink(events.filter((event) => event.stream === stream))).toBeUndefined()
  } finally {
    await store.close()
  }
}

/** Sends again what this log has and what only the other one had, and something new. */
async function expectWritesGoOn(alice: User, conversation: Conversation, kept: readonly Sent[], lost: readonly Sent[]): Promise<void> {
  expect(await sendAs(alice, conversation, 'kept-3', 'kept 3')).toMatchObject({
    status: 200,
    body: { seq: kept[3]!.seq, sentAt: kept[3]!.sentAt, duplicate: true },
  })
  const { head } = await alice.get<{ head: number }>(`/v1/conversations/${conversation.conversationId}`)
  const written = await sendAs(alice, conversation, 'lost-3', 'lost 3')
  expect(written).toMatchObject({ status: 201, body: { seq: head + 1 } })
  const more = await sendMany(alice, conversation, 'new', lost.length + 20)
  expect(more.map(({ seq }) => seq)).toEqual(more.map((_, n) => head + 2 + n))
  const messages = await messagesOf(alice, conversation, more.at(-1)!.position)
  const said = (prefix: string, sent: readonly Sent[]) => sent.map((_, n) => `${prefix} ${n}`)
  expect(messages).toEqual([...said('kept', kept), 'lost 3', ...said('new', more)])
}

/** A log that was kept after 30 messages and put back after 60 more, beside the read models and snapshots of those. */
async function restored() {
  const connectionString = await openDatabase()
  const first = await live(connectionString)
  const [alice, bob] = first.world.users('alice', 'bob')
  const conversation = await alice.direct(bob)
  const kept = await sendMany(alice, conversation, 'kept', 30)
  await first.end()
  await keepLog(connectionString)
  const second = await live(connectionString)
  expect(second.lines).toEqual([])
  const lost = await sendMany(of(second, alice), conversation, 'lost', 60)
  const tokens = await takeTokens(of(second, alice), conversation, lost.at(-1)!)
  await second.end()
  await putLogBack(connectionString)
  return { connectionString, alice, bob, conversation, kept, lost, tokens }
}

/** Other events at the places that the log had before, and beyond. */
async function writeOn(connectionString: string): Promise<void> {
  const store = await PostgresEventStore.open({ connectionString })
  const log = new LogWriter(store)
  await log.created('g-of-the-new-time', ['dave', 'erin'])
  for (let n = 0; n < 150; n += 1) await log.did('g-of-the-new-time', 'dave', { type: 'ConversationUpdated', data: { name: `name ${n}` } })
  await store.close()
}

test.each([
  ['as it was', async () => {}],
  ['and written on past the old place', writeOn],
])(
  'a log put back beside newer read models, %s: its tokens, tables and snapshots count for nothing',
  { timeout: 600_000 },
  async (_, meanwhile) => {
    const { connectionString, alice, bob, conversation, kept, lost, tokens } = await restored()
    await meanwhile(connectionString)
    const life = await live(connectionString)
    const [again, other] = [of(life, alice), of(life, bob)]
    await rebuilt(again)
    expect(life.lines.filter((line) => line === OTHER_LOG)).toEqual([OTHER_LOG])
    expect(await messagesOf(other, conversation)).toEqual(kept.map((__, n) => `kept ${n}`))
    expect((await other.get<{ items: object[] }>('/v1/inbox')).items).toMatchObject([{ head: kept.at(-1)!.seq, unread: kept.length }])
    await expectTokensRefused(again, tokens)
    await expectWritesGoOn(again, conversation, kept, lost)
    // Nor once the log has grown past them.
    await expectTokensRefused(again, tokens)
    const fresh = await takeTokens(again, conversation, (await sendMany(again, conversation, 'last', 1))[0]!)
    const device = await again.connect({ deviceId: 'phone', position: fresh.resume })
    expect(device.hello!.recovered).toBe(true)
    device.terminate()
    await life.end()
    await expectWholeChains(connectionString)
  },
)

test('a log put back under a node that runs: the node ends and says why in one line, and the next start serves what the log has', {
  timeout: 600_000,
}, async () => {
  const connectionString = await openDatabase()
  const { port } = new URL(connectionString)
  const proxy = await startLossyProxy(Number(port))
  started.push(() => proxy.close())
  const node = await Node.start({ DATABASE_URL: connectionString.replace(`:${port}/`, `:${proxy.port}/`) })
  started.push(() => node.stop())
  const [alice, bob] = [node.user('alice'), node.user('bob')]
  const conversation = await alice.direct(bob)
  const kept = await sendMany(alice, conversation, 'kept', 5)
  await keepLog(connectionString)
  const lost = await sendMany(alice, conversation, 'lost', 5)
  expect(await messagesOf(alice, conversation, lost.at(-1)!.position)).toHaveLength(10)
  proxy.cut()
  await putLogBack(connectionString)
  await writeOn(connectionString)
  proxy.mend()
  expect(await node.ended()).toBe(1)
  const said = node.lines
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as { level: number; msg: string; err?: { message: string } })
  expect(said.filter(({ level }) => level >= 60)).toMatchObject([
    { msg: 'The server cannot go on and ends: start it again', err: { message: expect.stringContaining('The log was set back') } },
  ])
  await node.restart()
  await rebuilt(alice)
  expect(await messagesOf(alice, conversation)).toEqual(kept.map((_, n) => `kept ${n}`))
})

test('a node that does not project serves nothing of tables that are not of its log, and serves again once they are rebuilt', {
  timeout: 600_000,
}, async () => {
  const { connectionString, alice, conversation, kept } = await restored()
  await writeOn(connectionString)
  const reading = await live(connectionString, { ROLES: 'api' })
  const reader = of(reading, alice)
  for (const path of ['inbox', 'unread', `conversations/${conversation.conversationId}/messages`])
    expect(await reader.call('GET', `/v1/${path}`)).toMatchObject({ status: 503, body: { code: 'unavailable' } })
  const projecting = await live(connectionString, { ROLES: 'projections' })
  await rebuilt(reader)
  expect(await messagesOf(reader, conversation)).toEqual(kept.map((_, n) => `kept ${n}`))
  expect([...reading.lines, ...projecting.lines].filter((line) => line === OTHER_LOG)).toEqual([OTHER_LOG])
})

test('`convolog replay` builds what is not of the log anew', { timeout: 600_000 }, async () => {
  const { connectionString, alice, conversation, kept, lost, tokens } = await restored()
  const book = new LogBook()
  await replay(loadConfig({ DATABASE_URL: connectionString }), connectionString, book, undefined)
  expect(book.lines.filter((line) => line === OTHER_LOG)).toEqual([OTHER_LOG])
  const life = await live(connectionString)
  const again = of(life, alice)
  expect(await messagesOf(again, conversation)).toEqual(kept.map((_, n) => `kept ${n}`))
  expect(life.lines).not.toContain(OTHER_LOG)
  await expectTokensRefused(again, tokens)
  await expectWritesGoOn(again, conversation, kept, lost)
})

test.skipIf(withoutLog('KurrentDB'))(
  'from a log in Postgres to an empty KurrentDB on the same DATABASE_URL, and back: each knows its own and nothing of the other',
  { timeout: 600_000 },
  async () => {
    const connectionString = await openDatabase()
    const log = await startLog('KurrentDB')
    started.push(() => log.stop())
    const first = await live(connectionString)
    const [alice, bob] = first.world.users('alice', 'bob')
    const conversation = await alice.direct(bob)
    const kept = await sendMany(alice, conversation, 'kept', 60)
    const tokens = await takeTokens(alice, conversation, kept.at(-1)!)
    await first.end()

    const second = await live(connectionString, log.env)
    const there = of(second, alice)
    await rebuilt(there)
    expect(second.lines.filter((line) => line === OTHER_LOG)).toEqual([OTHER_LOG])
    expect((await there.get<{ items: object[] }>('/v1/inbox')).items).toEqual([])
    expect((await there.direct(of(second, bob))).conversationId).toBe(conversation.conversationId)
    await expectTokensRefused(there, tokens)
    const lost = await sendMany(there, conversation, 'lost', 70)
    expect(lost.map(({ seq }) => seq)).toEqual(lost.map((_, n) => 1 + n))
    const tokensThere = await takeTokens(there, conversation, lost.at(-1)!)
    await second.end()

    const third = await live(connectionString)
    const back = of(third, alice)
    await rebuilt(back)
    expect(third.lines.filter((line) => line === OTHER_LOG)).toEqual([OTHER_LOG])
    await expectTokensRefused(back, tokensThere)
    expect(await messagesOf(back, conversation)).toEqual(kept.map((_, n) => `kept ${n}`))
    const device = await back.connect({ deviceId: 'phone', position: tokens.resume })
    expect(device.hello!.recovered).toBe(true)
    await expectWritesGoOn(back, conversation, kept, lost)
    await third.end()
    await expectWholeChains(connectionString)
  },
)
