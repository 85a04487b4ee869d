import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { ConversationEvent } from '../../src/domain/events.js'
import { text } from '../support/log-writer.js'
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

const find = async (seq: number) => {
  await side.settled()
  return (await side.readModels.history.find('g', seq)).message
}
const did = (userId: string, ...events: ConversationEvent[]) => side.log.did('g', userId, ...events)
const reacted = (userId: string, messageSeq: number, emoji: string) => did(userId, { type: 'ReactionAdded', data: { messageSeq, emoji } })

describe('a message', () => {
  test('comes back as it was sent', async () => {
    const awkward = 'quotes " and \\ and \n {braces}, NULL, 😀 and ,'
    await side.log.sent('g', 'alice', awkward, { clientMessageId: 'a"\\1', mentions: ['bob', 'carol'] })
    await side.log.sent('g', 'bob', { type: 'custom', data: { a: [1, null, 'x'] } }, { replyToSeq: 1 })
    expect(await find(1)).toEqual({
      conversationId: 'g',
      seq: 1,
      ordinal: 1,
      senderId: 'alice',
      clientMessageId: 'a"\\1',
      content: text(awkward),
      replyToSeq: null,
      mentions: ['bob', 'carol'],
      sentAt: '2026-01-01T00:00:02.000Z',
      editedAt: null,
      recalledAt: null,
      recalledBy: null,
      reactions: [],
      pinned: false,
    })
    expect(await find(2)).toMatchObject({ content: { type: 'custom', data: { a: [1, null, 'x'] } }, replyToSeq: 1, mentions: [] })
    expect(await find(0)).toBeUndefined()
    expect(await find(2 ** 40)).toBeUndefined()
  })

  test.each([
    ['that hold what stands before it in the log', text(',"ordinal":1,"content":{'), 'a","ordinal":1,"content":1'],
    ['with a content of its own', { type: 'custom' as const, data: { content: { ordinal: 1, content: [] } } }, 'plain'],
    ['of signs of every length', text('é € 😀 \u0001 ' + '漢'.repeat(700)), '~'],
  ])('is stored byte for byte: texts %s', async (_, content, clientMessageId) => {
    await side.log.sent('g', 'alice', content, { clientMessageId })
    expect(await find(1)).toMatchObject({ content, clientMessageId })
  })

  test('reads as it was edited last', async () => {
    await side.log.sent('g', 'alice', 'one')
    await side.settled()
    await did(
      'alice',
      { type: 'MessageEdited', data: { messageSeq: 1, content: text('two') } },
      { type: 'MessageEdited', data: { messageSeq: 1, content: text('three') } },
    )
    expect(await find(1)).toMatchObject({ content: text('three'), editedAt: '2026-01-01T00:00:04.000Z' })
  })

  test.each([
    ['in one batch', false],
    ['in several', true],
  ])('is erased when it is recalled, %s', async (_, apart) => {
    await side.log.sent('g', 'alice', 'one')
    if (apart) await side.settled()
    await did('alice', { type: 'MessageEdited', data: { messageSeq: 1, content: text('two') } })
    await did('bob', { type: 'MessageRecalled', data: { messageSeq: 1 } })
    expect(await find(1)).toMatchObject({ content: null, recalledAt: '2026-01-01T00:00:04.000Z', recalledBy: 'bob' })
  })

  test('shows who reacted, the first twenty in their order', async () => {
    await side.log.sent('g', 'alice', 'one')
    for (let i = 0; i < 22; i += 1) await reacted(`u${21 - i}`, 1, '👍')
    await reacted('alice', 1, '🎉')
    await reacted('u21', 1, '🎉')
    await did('u21', { type: 'ReactionRemoved', data: { messageSeq: 1, emoji: '👍' } })
    await side.settled()
    await reacted('u21', 1, '👍')
    const message = await find(1)
    expect(message?.reactions).toEqual([
      { emoji: '👍', count: 22, userIds: Array.from({ length: 20 }, (_, i) => `u${20 - i}`) },
      { emoji: '🎉', count: 2, userIds: ['alice', 'u21'] },
    ])
  })
})

describe('a list', () => {
  const seqs = async (options: { before?: number; after?: number; around?: number; pinned?: boolean; limit: number }) => {
    await side.settled()
    return (await side.readModels.history.list('g', { bytesMax: 1_000_000, ...options })).items.map(({ seq }) => seq)
  }
  beforeEach(async () => {
    for (let i = 1; i <= 10; i += 1) await side.log.sent('g', 'alice', `message ${i}`)
  })

  test('goes by seq, upwards, from either side', async () => {
    expect(await seqs({ limit: 3 })).toEqual([8, 9, 10])
    expect(await seqs({ before: 8, limit: 3 })).toEqual([5, 6, 7])
    expect(await seqs({ after: 0, limit: 3 })).toEqual([1, 2, 3])
    expect(await seqs({ after: 9, limit: 3 })).toEqual([10])
    expect(await seqs({ after: -1, limit: 2 })).toEqual([1, 2])
    expect(await seqs({ after: 2 ** 50, limit: 3 })).toEqual([])
    expect(await seqs({ before: 2 ** 50, limit: 1 })).toEqual([10])
  })

  test('goes around a seq, and gives one side what the other does not have', async () => {
    expect(await seqs({ around: 5, limit: 4 })).toEqual([4, 5, 6, 7])
    expect(await seqs({ around: 5, limit: 5 })).toEqual([3, 4, 5, 6, 7])
    expect(await seqs({ around: 1, limit: 4 })).toEqual([1, 2, 3, 4])
    expect(await seqs({ around: 10, limit: 4 })).toEqual([7, 8, 9, 10])
    expect(await seqs({ around: 2 ** 50, limit: 2 })).toEqual([9, 10])
    expect(await seqs({ around: 5, limit: 1 })).toEqual([5])
  })

  test('gives those that are pinned', async () => {
    for (const messageSeq of [2, 7, 5]) await did('alice', { type: 'MessagePinned', data: { messageSeq } })
    await did('alice', { type: 'MessageUnpinned', data: { messageSeq: 7 } })
    expect(await seqs({ pinned: true, limit: 5 })).toEqual([2, 5])
    await did('alice', { type: 'MessageUnpinned', data: { messageSeq: 2 } })
    expect(await seqs({ pinned: true, limit: 5 })).toEqual([5])
  })

  test('ends before it has too many bytes, has at least one, and says whether there is more', async () => {
    const page = async (options: { before?: number; after?: number; around?: number; limit?: number; bytesMax: number }) => {
      await side.settled()
      const { items, more } = await side.readModels.history.list('g', { limit: 50, ...options })
      return { seqs: items.map(({ seq }) => seq), more }
    }
    for (let seq = 11; seq <= 20; seq += 1) await side.log.sent('g', 'alice', 'x'.repeat(10_000))
    expect(await page({ bytesMax: 35_000 })).toEqual({ seqs: [18, 19, 20], more: true })
    expect(await page({ before: 18, bytesMax: 35_000 })).toEqual({ seqs: [15, 16, 17], more: true })
    expect(await page({ before: 12, bytesMax: 35_000 })).toEqual({ seqs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], more: false })
    expect(await page({ after: 10, bytesMax: 35_000 })).toEqual({ seqs: [11, 12, 13], more: true })
    expect(await page({ after: 17, bytesMax: 35_000 })).toEqual({ seqs: [18, 19, 20], more: false })
    expect(await page({ after: 10, bytesMax: 100 })).toEqual({ seqs: [11], more: true })
    expect(await page({ before: 21, bytesMax: 100 })).toEqual({ seqs: [20], more: true })
    expect(await page({ after: 0, limit: 3, bytesMax: 100_000 })).toEqual({ seqs: [1, 2, 3], more: true })
    expect(await page({ around: 15, bytesMax: 35_000 })).toEqual({ seqs: [14, 15, 16], more: true })
    expect(await page({ around: 15, bytesMax: 100 })).toEqual({ seqs: [15], more: true })
    expect(await page({ around: 19, bytesMax: 35_000 })).toEqual({ seqs: [18, 19, 20], more: false })
    // Where one side is too heavy the other goes on, and there is no hole.
    expect(await page({ around: 10, limit: 9, bytesMax: 16_000 })).toEqual({ seqs: [3, 4, 5, 6, 7, 8, 9, 10, 11], more: true })
  })

  test('counts the bytes of reactions too', async () => {
    for (const seq of [9, 10]) for (let n = 0; n < 20; n += 1) await reacted(`${'u'.repeat(50)}${n}`, seq, '👍')
    await side.settled()
    const { items, more } = await side.readModels.history.list('g', { limit: 50, bytesMax: 3_000 })
    expect([items.map(({ seq }) => seq), more]).toEqual([[10], true])
    expect(items[0]!.reactions[0]!.userIds).toHaveLength(20)
  })
})

describe('for the write side', () => {
  test('a message is found by its client id, many at a time, and it is said how far the history is', async () => {
    await side.log.sent('g', 'alice', 'one', { clientMessageId: 'x' })
    await side.log.created('h', ['bob'])
    await side.log.sent('h', 'bob', 'one', { clientMessageId: 'x' })
    await side.settled()
    const { history } = side.readModels
    expect(
      await Promise.all([
        history.findSentMessage('g', 'alice', 'x'),
        history.findSentMessage('g', 'bob', 'x'),
        history.findSentMessage('h', 'bob', 'x'),
        history.findSentMessage('nowhere', 'bob', 'x'),
      ]),
    ).toEqual([
      { asOf: 1, seq: 1 },
      { asOf: 1, seq: undefined },
      { asOf: 1, seq: 1 },
      { asOf: -1, seq: undefined },
    ])
  })

  test('what a sender has sent is found, all of it or what is new', async () => {
    await side.log.sent('g', 'alice', 'one', { clientMessageId: 'a' })
    await side.log.sent('g', 'bob', 'two', { clientMessageId: 'a' })
    await side.log.sent('g', 'alice', 'three', { clientMessageId: 'b' })
    await side.settled()
    const { history } = side.readModels
    const [one, three] = [
      { clientMessageId: 'a', seq: 1 },
      { clientMessageId: 'b', seq: 3 },
    ]
    const all = await history.findSentIds('g', 'alice', -1, 10)
    expect(all.sent.sort((a, b) => a.seq - b.seq)).toEqual([one, three])
    expect(await history.findSentIds('g', 'alice', 1, 10)).toEqual({ asOf: 3, sent: [three] })
    expect((await history.findSentIds('g', 'alice', -1, 1)).sent).toHaveLength(1)
    expect(await history.findSentIds('g', 'carol', -1, 10)).toEqual({ asOf: 3, sent: [] })
    expect(await history.findSentIds('nowhere', 'alice', -1, 10)).toEqual({ asOf: -1, sent: [] })
  })

  test('two messages whose keys have the same hash are told apart, and of one key the first is found', async () => {
    // The hash is over the conversation and the sender without a mark between them.
    await side.log.did('gal', 'ice', {
      type: 'ConversationCreated',
      data: { type: 'group', joinPolicy: 'invite', members: [{ userId: 'ice', role: 'owner' }] },
    })
    await side.log.sent('gal', 'ice', 'one', { clientMessageId: 'x' })
    await side.log.sent('g', 'alice', 'two', { clientMessageId: 'y' })
    await side.log.sent('g', 'alice', 'three', { clientMessageId: 'x' })
    await side.log.sent('g', 'alice', 'four', { clientMessageId: 'x' })
    await side.settled()
    const { history } = side.readModels
    expect(
      await Promise.all([
        history.findSentMessage('gal', 'ice', 'x'),
        history.findSentMessage('g', 'alice', 'x'),
        history.findSentMessage('ga', 'lice', 'x'),
        history.findSentMessage('gal', 'ice', 'y'),
      ]),
    ).toEqual([
      { asOf: 1, seq: 1 },
      { asOf: 3, seq: 2 },
      { asOf: -1, seq: undefined },
      { asOf: 1, seq: undefined },
    ])
    expect(await history.findSentIds('gal', 'ice', -1, 10)).toEqual({ asOf: 1, sent: [{ clientMessageId: 'x', seq: 1 }] })
  })

  test('the facts about a message are what decisions need', async () => {
    await side.log.sent('g', 'alice', 'one')
    await reacted('bob', 1, '👍')
    await reacted('carol', 1, '👍')
    await side.settled()
    const { history } = side.readModels
    expect(await history.findMessageFacts('g', 1, { userId: 'bob', emoji: '👍' })).toEqual({
      asOf: 3,
      message: {
        seq: 1,
        senderId: 'alice',
        content: text('one'),
        recalled: false,
        pinned: false,
        reactions: new Map([['👍', 2]]),
        reacted: true,
      },
    })
    expect(await history.findMessageFacts('g', 1, { userId: 'alice', emoji: '👍' })).toMatchObject({ message: { reacted: false } })
    expect(await history.findMessageFacts('g', 2)).toEqual({ asOf: 3, message: undefined })
    expect(await history.findMessageFacts('nowhere', 2)).toEqual({ asOf: -1, message: undefined })
    const ordinals = await Promise.all([0, 1, 3, 2 ** 31 - 1].map((seq) => history.findOrdinal('g', seq)))
    expect(ordinals).toEqual([0, 1, 1, 1].map((ordinal) => ({ asOf: 3, ordinal })))
    expect(await history.findOrdinal('nowhere', 2)).toEqual({ asOf: -1, ordinal: 0 })
    await did('alice', { type: 'MessageRecalled', data: { messageSeq: 1 } })
    await history.waitForRevision('g', 4)
    expect(await history.findRecalled('g', [1, 2])).toEqual({ asOf: 4, recalled: new Set([1]) })
    expect(await history.findMessageFacts('g', 1)).toMatchObject({ message: { content: null, recalled: true } })
  })
})
