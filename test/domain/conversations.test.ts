import { setImmediate as nextTurn } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'
import { type SentMessage, Conversations } from '../../src/domain/conversations.js'
import { GENERATION_REVISIONS } from '../../src/domain/conversation/state.js'
import { Refusal } from '../../src/domain/errors.js'
import { StoreUnavailable } from '../../src/domain/event-store.js'
import { conversationStream, directConversationId, newGroupId, receiptsStream } from '../../src/domain/ids.js'
import { Users } from '../../src/domain/users.js'
import type { Requester } from '../../src/domain/write-path/streams.js'
import { FakeHistory } from '../support/fake-history.js'
import { type Change, edit, join, leave, pin, react, recall, sending, text, unreact } from '../support/given.js'
import { findBrokenLink } from '../support/hash-chain.js'
import { InMemoryEventStore, slow, unknownButDone } from '../support/in-memory-event-store.js'
import { InMemorySnapshots, LogBook } from '../support/notes.js'

const as = (userId: string): Requester => ({ actor: { userId }, correlationId: 'r' })

function makeNode(store = new InMemoryEventStore(), { isShared = false } = {}) {
  const [snapshots, logger, history] = [new InMemorySnapshots(), new LogBook(), new FakeHistory(store.log)]
  const users = new Users({ store, snapshots, logger, cacheWeightMax: 8 << 20 })
  const conversations = new Conversations({
    store,
    snapshots,
    history,
    users,
    logger,
    membersMax: 100,
    cacheWeightMax: 64 << 20,
    isShared,
  })
  return { store, history, users, conversations }
}

let { store, history, users, conversations } = makeNode()
let group: string

beforeEach(async () => {
  ;({ store, history, users, conversations } = makeNode())
  group = await createGroup()
})

async function createGroup(): Promise<string> {
  const id = newGroupId()
  await conversations.create(
    { type: 'CreateConversation', conversationType: 'group', memberIds: ['ben', 'cleo'], joinPolicy: 'open' },
    id,
    as('anna'),
  )
  return id
}
const openDirect = (userId: string, otherId: string) =>
  conversations.create(
    { type: 'CreateConversation', conversationType: 'direct', memberIds: [otherId] },
    directConversationId(userId, otherId),
    as(userId),
  )
const send = (userId: string, clientMessageId: string, more: object = {}, id = group) =>
  conversations.send(id, sending({ clientMessageId, ...more }), as(userId))
const change = (userId: string, command: Change, id = group) => conversations.execute(id, command, as(userId))
const logged = (id = group) => store.log.streams.get(conversationStream(id)) ?? []

/** So many messages of Cleo, to move the window. */
async function chatter(count: number, id = group, prefix = 'chat'): Promise<SentMessage[]> {
  return Promise.all(
    Array.from({ length: count }, (_, i) => conversations.send(id, sending({ clientMessageId: `${prefix}${i}` }), as('cleo'))),
  )
}
/** Beyond the window whatever was said before. */
const BEYOND_WINDOW = 2 * GENERATION_REVISIONS + 10

async function refusalOf(answer: Promise<unknown>): Promise<Refusal> {
  const error = await answer.then(
    (value) => new Error(`not refused: ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (error instanceof Refusal) return error
  throw error
}
const codeOf = async (answer: Promise<unknown>) => (await refusalOf(answer)).code

describe('creating', () => {
  test('answers with the conversation as it is', async () => {
    const { state, member, position } = await conversations.open(group, { userId: 'anna' })
    expect(state).toMatchObject({ head: 0, type: 'group', ownerId: 'anna' })
    expect([member?.role, position]).toEqual(['owner', await store.head()])
  })

  test('a direct conversation by both at once makes one', async () => {
    const [one, other] = await Promise.all([openDirect('anna', 'ben'), openDirect('ben', 'anna')])
    expect(one.conversationId).toBe(other.conversationId)
    expect([one.created, other.created]).toEqual([true, false])
    expect(logged(one.conversationId)).toHaveLength(1)
  })

  test('a direct conversation on two nodes at once makes one', async () => {
    const there = makeNode(new InMemoryEventStore(store.log)).conversations
    const id = directConversationId('ben', 'anna')
    const asking = [
      [conversations, 'anna', 'ben'],
      [there, 'ben', 'anna'],
    ] as const
    const opened = await Promise.all(
      asking.map(([node, userId, other]) =>
        node.create({ type: 'CreateConversation', conversationType: 'direct', memberIds: [other] }, id, as(userId)),
      ),
    )
    expect(opened.filter(({ created }) => created)).toHaveLength(1)
    expect(logged(id)).toHaveLength(1)
  })
})

describe('a message', () => {
  test('is answered with where it is', async () => {
    const sent = await send('ben', 'm1')
    expect(sent).toEqual({
      conversationId: group,
      seq: 1,
      ordinal: 1,
      position: await store.head(),
      sentAt: new Date(logged()[1]!.metadata.at).toISOString(),
    })
  })

  test('sent again is answered with its first result', async () => {
    const first = await send('ben', 'm1', { mentions: ['anna', 'cleo'] })
    expect(await send('ben', 'm1', { mentions: ['cleo', 'anna', 'cleo'] })).toEqual({ ...first, duplicate: true })
    expect(logged()).toHaveLength(2)
  })

  test('sent again with keys in another order is the same', async () => {
    const first = await send('ben', 'm1', { content: { type: 'custom', data: { a: 1, b: { c: 2, d: 3 } } } })
    expect(await send('ben', 'm1', { content: { data: { b: { d: 3, c: 2 }, a: 1 }, type: 'custom' } })).toEqual({
      ...first,
      duplicate: true,
    })
  })

  test.each([
    ['content', { content: text('other') }],
    ['reply', { replyToSeq: 1 }],
    ['mentions', { mentions: ['anna'] }],
  ])('sent again with other %s is a conflict that names the first', async (_, more) => {
    await send('anna', 'm0')
    await send('ben', 'm1')
    const refusal = await refusalOf(send('ben', 'm1', more))
    expect(refusal.code).toBe('idempotency_conflict')
    expect(refusal.message).toContain('seq 2')
  })

  test('sent many times at once is one', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => send('ben', 'm1')))
    expect(new Set(answers.map(({ seq, position }) => `${seq} ${position}`)).size).toBe(1)
    expect(answers.filter(({ duplicate }) => !duplicate)).toHaveLength(1)
  })

  test('whose answer was lost is sent again', async () => {
    store.faults.push(unknownButDone)
    expect(await refusalOf(send('ben', 'm1'))).toMatchObject({ code: 'unavailable', temporary: true })
    expect(await send('ben', 'm1')).toMatchObject({ seq: 1, duplicate: true })
  })

  test('edited, recalled, frozen or blocked since is still the first', async () => {
    const first = await send('ben', 'm1')
    await change('ben', edit(1))
    await change('anna', recall(1))
    await change('anna', { type: 'UpdateConversation', frozen: true })
    expect(await send('ben', 'm1')).toEqual({ ...first, duplicate: true })
    expect((await refusalOf(send('ben', 'm1', { content: text('better') }))).code).toBe('idempotency_conflict')
  })

  test('replies to what is a message', async () => {
    await send('anna', 'm0')
    expect(await send('ben', 'm1', { replyToSeq: 1 })).toMatchObject({ seq: 2 })
    for (const replyToSeq of [0, 3, 99, 2 ** 40])
      expect(await codeOf(send('ben', `r${replyToSeq}`, { replyToSeq }))).toBe('invalid_request')
  })

  test('replies to one that another node has just taken', async () => {
    const there = makeNode(new InMemoryEventStore(store.log)).conversations
    const elsewhere = await there.send(group, sending({ clientMessageId: 'x' }), as('cleo'))
    expect(await send('ben', 'm1', { replyToSeq: elsewhere.seq })).toMatchObject({ seq: 2 })
    expect(await change('ben', react(elsewhere.seq))).toMatchObject({ seq: 3 })
  })
})

describe('a message older than the window', () => {
  let first: SentMessage
  beforeEach(async () => {
    first = await send('ben', 'old')
    await chatter(BEYOND_WINDOW)
  })

  test('is still the first', async () => {
    expect(await send('ben', 'old')).toEqual({ ...first, duplicate: true })
    expect(history.asked).toContain('findSentMessage old')
  })

  test('with other content is a conflict', async () =>
    expect(await codeOf(send('ben', 'old', { content: text('other') }))).toBe('idempotency_conflict'))

  test('is found by a history that lags, as long as it reaches the window', async () => {
    history.seen = logged().length - GENERATION_REVISIONS
    expect(await send('ben', 'old')).toMatchObject({ seq: 1, duplicate: true })
    expect(history.asked.filter((asked) => asked.startsWith('wait'))).toEqual([])
  })

  test('that the history has seen needs no waiting, however far it is behind', async () => {
    history.seen = 2
    expect(await send('ben', 'old')).toMatchObject({ seq: 1, duplicate: true })
    expect(history.asked.filter((asked) => asked.startsWith('wait'))).toEqual([])
  })

  test('is waited for where the history is behind the window', async () => {
    history.seen = 1
    expect(await send('ben', 'old')).toMatchObject({ seq: 1, duplicate: true })
    expect(history.asked.some((asked) => asked.startsWith('wait'))).toBe(true)
  })

  test('can not be told from a new one while the history is stuck behind the window', async () => {
    history.seen = 1
    history.isStuck = true
    expect(await codeOf(send('ben', 'old'))).toBe('unavailable')
    history.isStuck = false
    expect(await send('ben', 'old')).toMatchObject({ seq: 1, duplicate: true })
  })

  test('is looked up again when the history has come as far as the window', async () => {
    await change('ben', recall(1))
    await chatter(BEYOND_WINDOW, group, 'more')
    history.seen = 2
    expect(await codeOf(change('ben', edit(1)))).toBe('already_recalled')
    history.seen = 2
    history.isStuck = true
    expect(await codeOf(change('ben', edit(1)))).toBe('unavailable')
  })

  test('is still the first for a sender whose ids are known by then, and the history is not asked for each of its messages', async () => {
    for (let i = 0; i < 4; i++) await send('ben', `n${i}`)
    await nextTurn()
    history.asked.length = 0
    for (let i = 4; i < 10; i++) expect(await send('ben', `n${i}`)).not.toHaveProperty('duplicate')
    expect(await send('ben', 'old')).toEqual({ ...first, duplicate: true })
    expect(await codeOf(send('ben', 'old', { content: text('other') }))).toBe('idempotency_conflict')
    expect(history.asked).toEqual([])
  })

  test('is still the first when the window has moved beyond what was known of its sender', async () => {
    for (let i = 0; i < 4; i++) await send('ben', `n${i}`)
    await nextTurn()
    const second = await send('ben', 'second')
    await chatter(BEYOND_WINDOW, group, 'more')
    history.asked.length = 0
    expect(await send('ben', 'second')).toEqual({ ...second, duplicate: true })
    expect(history.asked).toEqual(['findSentMessage second'])
    for (let i = 0; i < 4; i++) await send('ben', `o${i}`)
    await nextTurn()
    history.asked.length = 0
    expect(await send('ben', 'second')).toEqual({ ...second, duplicate: true })
    expect(await send('ben', 'old')).toEqual({ ...first, duplicate: true })
    expect(history.asked).toEqual([])
  })

  test('is edited, reacted to, pinned and recalled on what a lagging history and the window say together', async () => {
    history.seen = logged().length - GENERATION_REVISIONS
    expect(await change('ben', edit(1, 'better'))).toMatchObject({ unchanged: false })
    expect(await change('ben', edit(1, 'better'))).toMatchObject({ unchanged: true })
    expect(await change('cleo', react(1))).toMatchObject({ unchanged: false })
    expect(await change('cleo', react(1))).toMatchObject({ unchanged: true })
    expect(await change('anna', pin(1))).toMatchObject({ unchanged: false })
    expect(await change('anna', pin(1))).toMatchObject({ unchanged: true })
    expect(await change('ben', recall(1))).toMatchObject({ unchanged: false })
    expect(await codeOf(change('ben', edit(1, 'again')))).toBe('already_recalled')
  })
})

describe('at the edge of the window', () => {
  test('a resend that waits behind the one that moves the window is still the first', async () => {
    const first = await send('ben', 'old')
    await chatter(2 * GENERATION_REVISIONS - 1 - logged().length)
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const holding = send('cleo', 'holding')
    await reached
    // Both are looked up together at head 1,999, and decided together: the first of them moves the window.
    const batch = [send('cleo', 'mover'), send('ben', 'old')]
    letGo()
    await holding
    const [, again] = await Promise.all(batch)
    expect(again).toEqual({ ...first, duplicate: true })
  })
})

describe('one who leaves and comes back', () => {
  test('while its message waits is looked up again as the member that it is', async () => {
    const first = await send('ben', 'old')
    await chatter(BEYOND_WINDOW)
    await change('ben', leave)
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const holding = send('cleo', 'holding')
    await reached
    const [, again, reply, reaction] = [
      change('ben', join),
      send('ben', 'old'),
      send('ben', 'new', { replyToSeq: 1 }),
      change('ben', react(1)),
    ]
    letGo()
    await holding
    expect(await again).toEqual({ ...first, duplicate: true })
    expect(await reply).not.toHaveProperty('duplicate')
    expect(await reaction).toMatchObject({ unchanged: false })
  })
})

describe('a change to a message', () => {
  test('answers with the seq of its fact, or the head where nothing changed', async () => {
    await send('ben', 'm1')
    expect(await change('cleo', react(1))).toEqual({ seq: 2, position: await store.head(), unchanged: false, count: 1 })
    expect(await change('cleo', react(1))).toEqual({ seq: 2, position: await store.head(), unchanged: true, count: 0 })
  })

  test('of several facts answers with the last', async () => {
    expect(await change('anna', { type: 'AddMembers', userIds: ['dora', 'emil', 'ben'] })).toMatchObject({
      seq: 2,
      count: 2,
      unchanged: false,
    })
    expect(await change('anna', { type: 'ChangeRole', userId: 'ben', role: 'owner' })).toMatchObject({ seq: 4, count: 2 })
  })

  test.each([0, 2, 99, 2 ** 40])('that is none, %i, is not found', async (seq) => {
    await send('ben', 'm1')
    for (const command of [edit(seq), recall(seq), react(seq), unreact(seq), pin(seq)])
      expect(await codeOf(change('anna', command))).toBe('not_found')
  })

  test('that the history has not seen yet is read from the log', async () => {
    await send('ben', 'm1')
    history.seen = 1
    expect(await change('cleo', react(1))).toMatchObject({ seq: 2 })
    expect(await change('cleo', react(1))).toMatchObject({ unchanged: true })
    expect(await change('ben', edit(1, 'hello'))).toMatchObject({ unchanged: true })
    expect(await codeOf(change('cleo', edit(1)))).toBe('forbidden')
  })

  test('by many at once goes over each other in order', async () => {
    await send('ben', 'm1')
    const emoji = Array.from({ length: 60 }, (_, i) => `e${i}`)
    const results = await Promise.allSettled(emoji.map((e) => change('cleo', react(1, e))))
    expect(results.map(({ status }) => status)).toEqual(emoji.map((_, i) => (i < 50 ? 'fulfilled' : 'rejected')))
    expect(findBrokenLink(logged())).toBeUndefined()
  })
})

describe('a block', () => {
  let direct: string
  beforeEach(async () => {
    direct = (await openDirect('anna', 'ben')).conversationId
    await send('anna', 'm1', {}, direct)
    await users.execute('ben', { type: 'BlockUser', userId: 'anna' }, as('ben'))
  })

  test.each(['anna', 'ben'])('stops both from speaking: %s', async (userId) => {
    expect(await codeOf(send(userId, 'm2', {}, direct))).toBe('blocked')
    expect(await codeOf(change(userId, react(1), direct))).toBe('blocked')
  })
  test('lets recalling and resending be', async () => {
    expect(await send('anna', 'm1', {}, direct)).toMatchObject({ seq: 1, duplicate: true })
    expect(await change('anna', recall(1), direct)).toMatchObject({ seq: 2 })
  })
  test('is over when it is taken away', async () => {
    await users.execute('ben', { type: 'UnblockUser', userId: 'anna' }, as('ben'))
    expect(await send('anna', 'm2', {}, direct)).toMatchObject({ seq: 2 })
  })
  test('stops nobody in a group', async () => expect(await send('anna', 'm1')).toMatchObject({ seq: 1 }))
  test('stops a new direct conversation, from both sides', async () => {
    await users.execute('ben', { type: 'BlockUser', userId: 'dora' }, as('ben'))
    expect(await codeOf(openDirect('dora', 'ben'))).toBe('blocked')
    expect(await codeOf(openDirect('ben', 'dora'))).toBe('blocked')
  })
  test('lets an existing one be opened', async () => expect(await openDirect('anna', 'ben')).toMatchObject({ created: false }))
  test('on another node is known there when that reads it', async () => {
    const there = makeNode(new InMemoryEventStore(store.log)).conversations
    expect(await codeOf(there.send(direct, sending(), as('anna')))).toBe('blocked')
  })
})

describe('reading events', () => {
  const read = async (after = -1, limit = 100, reader: { userId: string } | { audit: true } = { userId: 'anna' }) => {
    const { items, ...rest } = await conversations.reads.events(group, reader, { after, limit, bytesMax: 1_000_000 })
    return {
      ...rest,
      events: items.map((item) => JSON.parse(item) as { seq: number; type: string; data: Record<string, unknown>; head: number }),
    }
  }
  const contents = async () => (await read()).events.map(({ data }) => data.content)

  test('gives them in order, each with all that a client needs', async () => {
    const { position, sentAt } = await send('ben', 'm1')
    const { events, last, head } = await read()
    expect([events.map(({ seq }) => seq), last, head]).toEqual([[0, 1], 1, 1])
    expect(events[1]).toEqual({
      conversationId: group,
      seq: 1,
      type: 'MessageSent',
      at: sentAt,
      actor: { userId: 'ben' },
      data: { clientMessageId: 'm1', ordinal: 1, content: text('hello') },
      position,
      head: 1,
    })
  })

  test('goes on after a seq, to a limit', async () => {
    await chatter(10)
    expect((await read(3, 4)).events.map(({ seq }) => seq)).toEqual([4, 5, 6, 7])
    expect(await read(10)).toEqual({ events: [], last: 10, head: 10, more: false })
    expect(await read(3, 4)).toMatchObject({ last: 7, head: 10, more: true })
    expect(await read(8)).toMatchObject({ last: 10, more: false })
    expect((await read(99)).events).toEqual([])
  })

  test('blanks what was recalled, the message and all its edits, before and after', async () => {
    await send('ben', 'm1')
    await send('ben', 'm2')
    await change('ben', edit(1, 'better'))
    await change('ben', edit(2, 'other'))
    expect(await contents()).toEqual([undefined, text('hello'), text('hello'), text('better'), text('other')])
    await change('anna', recall(1))
    expect(await contents()).toEqual([undefined, null, text('hello'), null, text('other'), undefined])
    const [, blanked] = (await read()).events
    expect(blanked!.data).toEqual({ clientMessageId: 'm1', ordinal: 1, content: null })
  })

  test('blanks what was recalled before the window, as far as the history knows', async () => {
    await send('ben', 'm1')
    await change('ben', edit(1, 'better'))
    await change('anna', recall(1))
    await chatter(BEYOND_WINDOW)
    history.seen = 1
    const { events } = await read(-1, 3)
    expect(events.map(({ data }) => data.content)).toEqual([undefined, null, null])
    history.isStuck = true
    history.seen = 1
    expect(await codeOf(read(-1, 3))).toBe('unavailable')
  })

  test('blanks what the log says is recalled further on, though this node has not heard of it', async () => {
    await send('ben', 'm1')
    const there = makeNode(new InMemoryEventStore(store.log), { isShared: true }).conversations
    await there.open(group, { userId: 'anna' })
    await change('anna', recall(1))
    const { items } = await there.reads.events(group, { userId: 'anna' }, { after: -1, limit: 100, bytesMax: 1_000_000 })
    expect(items.map((item) => (JSON.parse(item) as { data: { content?: unknown } }).data.content)).toEqual([undefined, null, undefined])
  })

  test('leaves the log and what comes live as it is: only what is given out is blanked', async () => {
    await send('ben', 'm1')
    await change('ben', recall(1))
    await read()
    expect(logged()[1]!.dataJson).toContain('hello')
  })

  test('is for members and auditors', async () => {
    await send('ben', 'm1')
    expect(await codeOf(read(-1, 10, { userId: 'zoe' }))).toBe('not_found')
    expect((await read(-1, 10, { audit: true })).events).toHaveLength(2)
    await change('cleo', leave)
    expect(await codeOf(read(-1, 10, { userId: 'cleo' }))).toBe('not_found')
    await change('anna', { type: 'RemoveMember', userId: 'ben' })
    expect(await codeOf(read(-1, 10, { userId: 'ben' }))).toBe('not_found')
  })

  test('of what does not exist is not found, for auditors too', async () => {
    expect(await codeOf(conversations.open('g-none', { audit: true }))).toBe('not_found')
    expect(await codeOf(conversations.open('g-none', { userId: 'anna' }))).toBe('not_found')
  })

  test('while the log is away is told to come back', async () => {
    store.beforeRead = () => {
      throw new StoreUnavailable('away')
    }
    expect(await codeOf(read())).toBe('unavailable')
    expect(await codeOf(conversations.open('g-other', { audit: true }))).toBe('unavailable')
  })
})

describe('reading up to', () => {
  const mark = (userId: string, seq: number) => conversations.markRead(group, seq, as(userId))
  const receipts = () => (store.log.streams.get(receiptsStream(group)) ?? []).map(({ type, data }) => ({ type, ...(data as object) }))
  beforeEach(async () => {
    await send('anna', 'm1')
    await change('cleo', react(1))
    await send('anna', 'm2')
    await change('cleo', react(3))
  })

  test.each([
    [0, 0],
    [1, 1],
    [2, 1],
    [3, 2],
    [4, 2],
  ])('seq %i is up to message %i', async (seq, ordinal) => {
    expect(await mark('ben', seq)).toEqual({ readSeq: seq, head: 4, position: await store.head(), unchanged: false })
    expect(receipts()).toEqual([{ type: 'ReadUpTo', userId: 'ben', seq, ordinal }])
  })

  test('an old seq finds its ordinal across many facts that are none', async () => {
    const many = Array.from({ length: 200 }, (_, i) => `many${i}`)
    for (const word of many) await change('anna', edit(1, word))
    await send('anna', 'm3')
    store.reads = 0
    await mark('ben', 203)
    expect(store.reads, 'only to look for a receipts stream').toBe(1)
    expect(receipts()).toEqual([{ type: 'ReadUpTo', userId: 'ben', seq: 203, ordinal: 2 }])
  })

  describe('that lies before the window', () => {
    beforeEach(async () => {
      await mark('cleo', 2)
      for (let i = 0; i < BEYOND_WINDOW; i++) await change('anna', edit(1, `many${i}`))
      await send('anna', 'm3')
      store.reads = 0
      history.asked.length = 0
    })

    test('finds its ordinal by one question, however many facts are none', async () => {
      await mark('ben', 40)
      expect(receipts().at(-1)).toEqual({ type: 'ReadUpTo', userId: 'ben', seq: 40, ordinal: 2 })
      expect([store.reads, history.asked]).toEqual([0, ['findOrdinal 40']])
    })

    test('asks nothing where it changes nothing', async () => {
      expect(await mark('cleo', 1)).toMatchObject({ readSeq: 2, unchanged: true })
      expect([store.reads, history.asked]).toEqual([0, []])
    })

    test('waits for a history that has not seen it', async () => {
      history.seen = 30
      await mark('ben', 40)
      expect(history.asked).toEqual(['findOrdinal 40', 'waitForRevision 40', 'findOrdinal 40'])
      expect(receipts().at(-1)).toMatchObject({ userId: 'ben', seq: 40, ordinal: 2 })
    })

    test('is to be said again where the history stays behind', async () => {
      Object.assign(history, { seen: 30, isStuck: true })
      expect(await codeOf(mark('ben', 40))).toBe('unavailable')
    })
  })

  test('backwards or again is unchanged', async () => {
    await mark('ben', 3)
    for (const seq of [3, 1]) expect(await mark('ben', seq)).toMatchObject({ readSeq: 3, head: 4, unchanged: true })
    expect(receipts()).toHaveLength(1)
  })

  test('what one sent oneself is unchanged', async () => {
    expect(await mark('anna', 3)).toMatchObject({ readSeq: 3, unchanged: true })
    expect(await mark('anna', 4)).toMatchObject({ readSeq: 4, unchanged: false })
  })

  test('what changes nothing says where one sees it: after the own message that moved the cursor', async () => {
    await mark('ben', 3)
    const { seq, position } = await send('ben', 'm3')
    expect(await mark('ben', seq)).toEqual({ readSeq: seq, head: seq, position, unchanged: true })
  })

  test('who leaves and joins again begins anew', async () => {
    await send('ben', 'm3')
    await mark('ben', 5)
    await conversations.markDelivered(group, 4, as('ben'))
    await change('ben', { type: 'Leave' })
    await change('anna', { type: 'AddMembers', userIds: ['ben'] })
    expect(await mark('ben', 3)).toMatchObject({ readSeq: 3, unchanged: false })
    expect(await mark('ben', 1)).toMatchObject({ readSeq: 3, unchanged: true })
    await conversations.markDelivered(group, 2, as('ben'))
    expect(receipts().slice(-2)).toEqual([
      { type: 'ReadUpTo', userId: 'ben', seq: 3, ordinal: 2, joinedSeq: 7 },
      { type: 'DeliveredUpTo', userId: 'ben', seq: 2, joinedSeq: 7 },
    ])
  })

  test('beyond the head is refused', async () => expect(await codeOf(mark('ben', 5))).toBe('invalid_request'))
  test('by a stranger is not found', async () => expect(await codeOf(mark('zoe', 0))).toBe('not_found'))

  test('what was delivered has a cursor of its own', async () => {
    await conversations.markDelivered(group, 3, as('ben'))
    await conversations.markDelivered(group, 2, as('ben'))
    expect(receipts()).toEqual([{ type: 'DeliveredUpTo', userId: 'ben', seq: 3 }])
    expect(await codeOf(conversations.markDelivered(group, 5, as('ben')))).toBe('invalid_request')
    expect(await codeOf(conversations.markDelivered(group, 1, as('zoe')))).toBe('not_found')
  })
})

describe('on two nodes', () => {
  test('what one wrote the other knows by following the log', async () => {
    const there = makeNode(new InMemoryEventStore(store.log)).conversations
    await there.open(group, { userId: 'ben' })
    await change('anna', { type: 'RemoveMember', userId: 'ben' })
    expect((await there.open(group, { userId: 'ben' })).member).not.toBeNull()
    there.follow(group, logged().at(-1)!)
    expect(await codeOf(there.open(group, { userId: 'ben' }))).toBe('not_found')
  })

  test('a restart finds all as it was', async () => {
    await send('ben', 'm1')
    await change('anna', { type: 'UpdateConversation', frozen: true, name: 'Quiet' })
    await conversations.close()
    const again = makeNode(new InMemoryEventStore(store.log)).conversations
    expect((await again.open(group, { userId: 'ben' })).state).toMatchObject({ head: 3, frozen: true, name: 'Quiet', lastOrdinal: 1 })
    expect(await again.send(group, sending({ clientMessageId: 'm1' }), as('ben'))).toMatchObject({ seq: 1, duplicate: true })
  })
})
