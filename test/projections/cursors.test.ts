import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { type ReadSide, openReadSide } from '../support/read-side.js'

let postgres: TestPostgres
let side: ReadSide
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres.stop())
beforeEach(async () => {
  side = await openReadSide(postgres)
  await side.log.created('g', ['alice', 'bob', 'carol'])
})
afterEach(() => side.close())

const unread = async (userId: string) => {
  await side.settled()
  const { position: _, ...counts } = await side.readModels.unreadCounts.list(userId)
  return counts
}

describe('unread counts', () => {
  test('count what came after the cursor; sending moves the own one', async () => {
    for (const sender of ['alice', 'bob', 'alice']) await side.log.sent('g', sender, 'x')
    expect(await unread('carol')).toEqual({ total: 3, mentions: 0, conversations: [{ conversationId: 'g', unread: 3, mentions: 0 }] })
    expect(await unread('bob')).toMatchObject({ total: 1 })
    expect(await unread('alice')).toEqual({ total: 0, mentions: 0, conversations: [] })
    await side.log.read('g', 'carol', 2, 2)
    await side.log.read('g', 'carol', 1, 1)
    expect(await unread('carol')).toMatchObject({ total: 1 })
  })

  test('begin where a member joined, also when it joins again', async () => {
    await side.log.sent('g', 'alice', 'x')
    await side.log.joined('g', 'dave')
    await side.log.sent('g', 'alice', '@dave', { mentions: ['dave'] })
    expect(await unread('dave')).toMatchObject({ total: 1, mentions: 1 })
    await side.log.left('g', 'dave')
    expect(await unread('dave')).toEqual({ total: 0, mentions: 0, conversations: [] })
    await side.log.read('g', 'dave', 3, 2)
    await side.log.sent('g', 'alice', '@dave', { mentions: ['dave'] })
    await side.log.joined('g', 'dave')
    expect(await unread('dave')).toMatchObject({ total: 0, mentions: 0 })
    expect((await side.readModels.inbox.list('dave', { limit: 1 })).items[0]).toMatchObject({ readSeq: null, unread: 0 })
  })

  test('count mentions of members, not of oneself, until they are read', async () => {
    await side.log.sent('g', 'alice', 'x', { mentions: ['alice', 'bob', 'stranger'] })
    await side.log.sent('g', 'alice', 'x', { mentions: ['bob'] })
    expect(await unread('bob')).toMatchObject({ mentions: 2, conversations: [{ unread: 2, mentions: 2 }] })
    expect(await unread('alice')).toMatchObject({ mentions: 0 })
    expect(await unread('stranger')).toMatchObject({ mentions: 0 })
    await side.log.joined('g', 'stranger')
    expect(await unread('stranger')).toMatchObject({ mentions: 0 })
    await side.log.read('g', 'bob', 1, 1)
    expect(await unread('bob')).toMatchObject({ mentions: 1, total: 1 })
    await side.log.sent('g', 'bob', 'x')
    expect(await unread('bob')).toMatchObject({ mentions: 0, total: 0 })
  })

  test('leave muted conversations out of the total only, count hidden ones, and give the newest first', async () => {
    await side.log.created('h', ['alice', 'bob'])
    await side.log.sent('g', 'alice', 'x', { mentions: ['bob'] })
    await side.log.sent('h', 'alice', 'x')
    await side.log.marked('bob', 'g', { muted: true })
    await side.log.marked('bob', 'h', { hidden: true })
    expect(await unread('bob')).toEqual({
      total: 1,
      mentions: 1,
      conversations: [
        { conversationId: 'h', unread: 1, mentions: 0 },
        { conversationId: 'g', unread: 1, mentions: 1 },
      ],
    })
  })

  test('leave out at once what the user has left, muted or not, and its mentions', async () => {
    for (const id of ['h', 'i']) await side.log.created(id, ['alice', 'bob'])
    for (const id of ['g', 'h', 'i']) await side.log.sent(id, 'alice', 'x', { mentions: ['bob'] })
    await side.log.marked('bob', 'h', { muted: true })
    await side.settled()
    const without = async (...left: string[]) => {
      const { total, mentions, conversations } = await side.readModels.unreadCounts.list('bob', (id) => left.includes(id))
      return [total, mentions, conversations.map(({ conversationId }) => conversationId)]
    }
    expect(await without()).toEqual([2, 3, ['i', 'h', 'g']])
    expect(await without('i')).toEqual([1, 2, ['h', 'g']])
    expect(await without('h')).toEqual([2, 2, ['i', 'g']])
    expect(await without('g', 'h', 'i')).toEqual([0, 0, []])
  })
})

describe('receipts', () => {
  const list = async (readBy?: number) => {
    await side.settled()
    return (await side.readModels.receipts.list('g', { limit: 50, readBy })).items
  }

  test('say of every member how far it is', async () => {
    await side.log.sent('g', 'alice', 'x')
    await side.log.read('g', 'bob', 1, 1)
    await side.log.delivered('g', 'bob', 1)
    const nothing = { readSeq: null, readAt: null, deliveredSeq: null, deliveredAt: null }
    expect(await list()).toEqual([
      { userId: 'alice', ...nothing, readSeq: 1, readAt: '2026-01-01T00:00:02.000Z' },
      { userId: 'bob', readSeq: 1, readAt: '2026-01-01T00:00:03.000Z', deliveredSeq: 1, deliveredAt: '2026-01-01T00:00:04.000Z' },
      { userId: 'carol', ...nothing },
    ])
    expect((await list(1)).map(({ userId }) => userId)).toEqual(['bob'])
    expect(await list(2)).toEqual([])
    expect(await list(2 ** 50)).toEqual([])
  })

  test('move forward only, and end with the membership', async () => {
    await side.log.sent('g', 'alice', 'x')
    await side.log.sent('g', 'alice', 'x')
    await side.log.read('g', 'bob', 2, 2)
    await side.settled()
    await side.log.read('g', 'bob', 1, 1)
    expect((await list())[1]).toMatchObject({ userId: 'bob', readSeq: 2, readAt: '2026-01-01T00:00:04.000Z' })
    await side.log.left('g', 'bob')
    await side.log.read('g', 'bob', 2, 2)
    await side.log.joined('g', 'bob')
    expect((await list())[2]).toEqual({ userId: 'bob', readSeq: null, readAt: null, deliveredSeq: null, deliveredAt: null })
  })

  test.each(['one batch', 'several'])(
    'of an earlier membership, written after the next has begun, count for nothing, in %s',
    async (batches) => {
      const next = async () => (batches === 'several' ? side.settled() : undefined)
      await side.log.sent('g', 'alice', 'x', { mentions: ['bob'] })
      await side.log.left('g', 'bob')
      await next()
      const joinedSeq = await side.log.joined('g', 'bob')
      const { seq, ordinal } = { seq: await side.log.sent('g', 'alice', 'x', { mentions: ['bob'] }), ordinal: 2 }
      await next()
      const { position } = side.log
      await side.log.read('g', 'bob', seq, ordinal, 0)
      await side.log.delivered('g', 'bob', seq, 0)
      await next()
      expect((await list()).at(-1)).toEqual({ userId: 'bob', readSeq: null, readAt: null, deliveredSeq: null, deliveredAt: null })
      expect(await list(seq)).toEqual([])
      expect(await unread('bob')).toMatchObject({ total: 1, mentions: 1 })
      expect(await side.readModels.receipts.after(['g'], position)).toEqual([])
      await side.log.read('g', 'bob', seq, ordinal, joinedSeq)
      await side.log.read('g', 'bob', seq + 5, ordinal + 5, 0)
      await next()
      expect((await list()).at(-1)).toMatchObject({ userId: 'bob', readSeq: seq, deliveredSeq: null })
      expect(await unread('bob')).toMatchObject({ total: 0, mentions: 0 })
      const sent = await side.log.sent('g', 'bob', 'x')
      await next()
      expect((await list()).at(-1)).toMatchObject({ userId: 'bob', readSeq: sent })
      expect(await side.readModels.receipts.after(['g'], position)).toEqual([
        { conversationId: 'g', userId: 'bob', readSeq: sent, deliveredSeq: null },
      ])
    },
  )

  test('that moved after a position are those of cursor events', async () => {
    await side.log.sent('g', 'alice', 'x')
    await side.log.read('g', 'bob', 1, 1)
    const { position } = side.log
    await side.log.delivered('g', 'carol', 1)
    await side.log.sent('g', 'bob', 'x')
    await side.settled()
    expect(await side.readModels.receipts.after(['g', 'h'], position)).toEqual([
      { conversationId: 'g', userId: 'carol', readSeq: null, deliveredSeq: 1 },
    ])
    expect(await side.readModels.receipts.after([], position)).toEqual([])
  })
})

describe('users', () => {
  test('have a profile, contacts, blocks and devices', async () => {
    const { log, readModels } = side
    expect(await readModels.users.findProfile('alice')).toBeUndefined()
    await log.self('alice', { type: 'UserRegistered', data: { name: 'Alice', avatarUrl: null, custom: {} } })
    await log.self('alice', { type: 'ProfileChanged', data: { name: 'Ally', avatarUrl: 'https://x/y', custom: { a: 1 } } })
    for (const userId of ['zoe', 'bob', 'carol']) await log.self('alice', { type: 'ContactAdded', data: { userId } })
    await log.self('alice', { type: 'ContactRemoved', data: { userId: 'bob' } }, { type: 'UserBlocked', data: { userId: 'bob' } })
    await log.self(
      'alice',
      { type: 'DeviceSeen', data: { deviceId: 'phone' } },
      { type: 'DeviceSeen', data: { deviceId: 'old' } },
      { type: 'DeviceRevoked', data: { deviceId: 'old' } },
    )
    await side.settled()
    expect(await readModels.users.findProfile('alice')).toEqual({
      userId: 'alice',
      name: 'Ally',
      avatarUrl: 'https://x/y',
      custom: { a: 1 },
    })
    const first = await readModels.contacts.list('alice', { limit: 1 })
    expect(first.items).toEqual([{ userId: 'carol' }])
    expect(await readModels.contacts.list('alice', { limit: 1, cursor: first.nextCursor! })).toEqual({
      items: [{ userId: 'zoe' }],
      nextCursor: null,
    })
    for await (const owners of readModels.contacts.whoHave('zoe')) expect(owners).toEqual(['alice'])
    expect((await readModels.blocks.list('alice', { limit: 5 })).items).toEqual([{ userId: 'bob' }])
    expect((await readModels.devices.list('alice', { limit: 5 })).items).toMatchObject([{ deviceId: 'phone' }])
  })
})

describe('snapshots', () => {
  test('are kept, and only go forward', async () => {
    const { snapshots } = side.readModels
    const snapshot = (revision: number) => ({ version: 1, revision, position: '7', hash: 'h', state: { a: [1, 'x'] } })
    expect(await snapshots.load('conversation-g')).toBeUndefined()
    await snapshots.save('conversation-g', snapshot(5))
    await snapshots.save('conversation-g', snapshot(4))
    expect(await snapshots.load('conversation-g')).toEqual(snapshot(5))
  })
})
