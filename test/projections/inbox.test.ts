import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { text } from '../support/log-writer.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { type ReadSide, openReadSide } from '../support/read-side.js'

let postgres: TestPostgres
let side: ReadSide
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres.stop())
afterEach(() => side.close())

const lines = async (userId: string, hidden = false) => {
  await side.settled()
  return (await side.readModels.inbox.list(userId, { limit: 50, hidden })).items
}
const ids = async (userId: string, hidden = false) => (await lines(userId, hidden)).map(({ conversationId }) => conversationId)

// The same with rows written for every member and with all of it merged when it is read.
describe.each([
  ['written', 500],
  ['merged', 1],
])('an inbox that is %s', (_, fanoutOnWriteMax) => {
  const open = async () => {
    side = await openReadSide(postgres, { fanoutOnWriteMax })
  }

  test('has a line for each conversation, with all that it shows', async () => {
    await open()
    await side.log.created('d', ['alice', 'bob'], { type: 'direct' })
    await side.log.created('g', ['bob', 'alice'], { name: 'Group' })
    await side.log.sent('d', 'bob', 'hello')
    await side.log.sent('d', 'bob', 'hello @alice', { mentions: ['alice'] })
    await side.settled()
    expect(await side.readModels.inbox.list('alice', { limit: 50 })).toEqual({
      nextCursor: null,
      position: await side.store.head(),
      items: [
        {
          conversationId: 'd',
          type: 'direct',
          name: null,
          otherUserId: 'bob',
          memberCount: 2,
          head: 2,
          lastMessage: { seq: 2, senderId: 'bob', sentAt: '2026-01-01T00:00:04.000Z', preview: 'hello @alice' },
          lastActivityAt: '2026-01-01T00:00:04.000Z',
          unread: 2,
          mentions: 1,
          readSeq: null,
          pinned: false,
          muted: false,
          hidden: false,
        },
        {
          conversationId: 'g',
          type: 'group',
          name: 'Group',
          otherUserId: null,
          memberCount: 2,
          head: 0,
          lastMessage: null,
          lastActivityAt: '2026-01-01T00:00:02.000Z',
          unread: 0,
          mentions: 0,
          readSeq: null,
          pinned: false,
          muted: false,
          hidden: false,
        },
      ],
    })
    expect(await lines('bob')).toMatchObject([
      { conversationId: 'd', otherUserId: 'alice', unread: 0, readSeq: 2 },
      { conversationId: 'g' },
    ])
    expect(await lines('nobody')).toEqual([])
  })

  test('goes by last activity, pinned on top, and page by page', async () => {
    await open()
    for (const id of ['a', 'b', 'c', 'd', 'e']) await side.log.created(id, ['alice', 'bob'])
    await side.log.sent('b', 'bob', 'x')
    await side.log.did('d', 'alice', { type: 'ConversationUpdated', data: { name: 'no activity' } })
    await side.log.marked('alice', 'c', { pinned: true })
    await side.log.marked('alice', 'a', { pinned: true })
    await side.log.sent('a', 'bob', 'x')
    await side.settled()
    const found: string[] = []
    for (let cursor: string | undefined; ; ) {
      const page = await side.readModels.inbox.list('alice', { limit: 2, cursor })
      found.push(...page.items.map(({ conversationId }) => conversationId))
      if (page.nextCursor === null) break
      cursor = page.nextCursor
    }
    expect(found).toEqual(['a', 'c', 'b', 'e', 'd'])
    expect(await ids('bob')).toEqual(['a', 'b', 'e', 'd', 'c'])
  })

  test('hides until a new message comes', async () => {
    await open()
    await side.log.created('a', ['alice', 'bob'])
    await side.log.created('b', ['alice', 'bob'])
    await side.log.marked('alice', 'a', { hidden: true })
    expect(await ids('alice')).toEqual(['b'])
    expect(await lines('alice', true)).toMatchObject([{ conversationId: 'a', hidden: true }])
    await side.log.sent('a', 'bob', 'x')
    expect(await ids('alice')).toEqual(['a', 'b'])
    expect(await ids('alice', true)).toEqual([])
    await side.log.marked('alice', 'b', { hidden: true })
    await side.log.marked('alice', 'b', { hidden: false })
    expect(await ids('alice', true)).toEqual([])
  })

  test('keeps the marks of one who leaves and comes again', async () => {
    await open()
    await side.log.created('a', ['alice', 'bob'])
    await side.log.sent('a', 'alice', 'x')
    await side.log.marked('bob', 'a', { muted: true, pinned: true })
    await side.log.left('a', 'bob')
    expect(await ids('bob')).toEqual([])
    await side.log.joined('a', 'bob')
    expect(await lines('bob')).toMatchObject([
      { conversationId: 'a', muted: true, pinned: true, unread: 0, lastActivityAt: '2026-01-01T00:00:02.000Z' },
    ])
  })

  test('previews follow edits and are gone with a recall', async () => {
    await open()
    await side.log.created('a', ['alice', 'bob'])
    await side.log.sent('a', 'alice', 'one')
    await side.log.sent('a', 'alice', 'two')
    const preview = async () => (await lines('bob'))[0]?.lastMessage?.preview
    await side.log.did('a', 'alice', { type: 'MessageEdited', data: { messageSeq: 1, content: text('not the last') } })
    expect(await preview()).toBe('two')
    await side.log.did('a', 'alice', { type: 'MessageEdited', data: { messageSeq: 2, content: text('edited') } })
    expect(await preview()).toBe('edited')
    await side.log.did('a', 'alice', { type: 'MessageRecalled', data: { messageSeq: 2 } })
    expect(await preview()).toBeNull()
  })

  test('is the same for a group that grows over the limit and shrinks again', async () => {
    await open()
    await side.log.created('a', ['alice'])
    await side.log.created('b', ['alice'])
    await side.log.sent('a', 'alice', 'x')
    expect(await ids('alice')).toEqual(['a', 'b'])
    await side.log.joined('b', 'bob')
    await side.log.sent('b', 'alice', 'x')
    expect(await ids('alice')).toEqual(['b', 'a'])
    await side.log.left('b', 'bob')
    expect(await ids('alice')).toEqual(['b', 'a'])
    await side.log.sent('a', 'alice', 'x')
    expect(await ids('alice')).toEqual(['a', 'b'])
  })
})
