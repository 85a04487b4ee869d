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
})
afterEach(() => side.close())

const memberIds = async (id: string, limit = 50) => (await side.readModels.members.list(id, { limit })).items.map(({ userId }) => userId)

describe('members', () => {
  test('come in the order in which they joined, page by page', async () => {
    const { log, readModels } = side
    await log.created('g', ['alice', 'carol', 'bob'])
    await log.joined('g', 'aaron')
    await log.joined('g', 'zoe')
    await side.settled()
    const first = await readModels.members.list('g', { limit: 2 })
    expect(first.items).toEqual([
      { userId: 'alice', role: 'owner', joinedAt: '2026-01-01T00:00:01.000Z' },
      { userId: 'carol', role: 'member', joinedAt: '2026-01-01T00:00:01.000Z' },
    ])
    const second = await readModels.members.list('g', { limit: 2, cursor: first.nextCursor! })
    expect(second.items.map(({ userId }) => userId)).toEqual(['bob', 'aaron'])
    const third = await readModels.members.list('g', { limit: 2, cursor: second.nextCursor! })
    expect(third).toEqual({ items: [{ userId: 'zoe', role: 'member', joinedAt: '2026-01-01T00:00:03.000Z' }], nextCursor: null })
  })

  test('who left and came again is the newest', async () => {
    const { log } = side
    await log.created('g', ['alice', 'bob', 'carol'])
    await log.left('g', 'bob')
    await side.settled()
    expect(await memberIds('g')).toEqual(['alice', 'carol'])
    await log.joined('g', 'bob')
    await side.settled()
    expect(await memberIds('g')).toEqual(['alice', 'carol', 'bob'])
  })

  test('a cursor that nobody gave is refused', async () => {
    await side.settled()
    for (const cursor of ['x', 'WzFd', Buffer.from('[1,"a"]').toString('base64url'), Buffer.from('[1, 2]').toString('base64url'), '']) {
      await expect(side.readModels.members.list('g', { limit: 2, cursor })).rejects.toMatchObject({ code: 'invalid_request' })
    }
  })
})

describe('memberships', () => {
  test('say what a device needs to know, as of one position', async () => {
    const { log, readModels, store } = side
    await log.created('g', ['alice', 'bob'])
    await log.sent('g', 'alice', 'hello')
    await log.joined('g', 'carol')
    const joinedPosition = log.position
    await log.sent('g', 'alice', 'hello @carol', { mentions: ['carol', 'nobody', 'alice'] })
    const lastPosition = log.position
    await log.marked('carol', 'g', { muted: true })
    await side.settled()
    expect(await readModels.memberships.ofUser('carol')).toEqual({
      position: await store.head(),
      conversations: [
        {
          conversationId: 'g',
          type: 'group',
          head: 3,
          lastOrdinal: 2,
          memberCount: 3,
          joinedSeq: 2,
          joinedPosition,
          lastPosition,
          readOrdinal: 1,
          mentionOrdinals: [2],
          muted: true,
        },
      ],
    })
    expect(await readModels.memberships.ofUser('nobody')).toEqual({ position: await store.head(), conversations: [] })
  })

  test('departures after a position are the last ones of each conversation, also where the user has come back', async () => {
    const { log, readModels } = side
    await log.created('g', ['alice', 'bob'])
    await log.created('h', ['alice', 'bob'])
    const before = log.position
    await log.left('g', 'bob')
    const position = log.position
    await log.did('h', 'alice', { type: 'MemberRemoved', data: { userId: 'bob' } })
    await log.joined('h', 'bob')
    await log.left('h', 'bob')
    const later = log.position
    await log.joined('h', 'bob')
    const [left, leftAgain] = [
      { conversationId: 'g', seq: 1, position },
      { conversationId: 'h', seq: 3, position: later },
    ]
    // In one batch, and in several: the same.
    await side.settled()
    expect(await readModels.memberships.departuresAfter('bob', before, 10)).toEqual([left, leftAgain])
    expect(await readModels.memberships.departuresAfter('bob', position, 10)).toEqual([leftAgain])
    expect(await readModels.memberships.departuresAfter('bob', later, 10)).toEqual([])
    await log.joined('g', 'bob')
    await side.settled()
    expect(await readModels.memberships.departuresAfter('bob', before, 10)).toEqual([left, leftAgain])
  })

  test('sharing is being in a conversation together', async () => {
    const { log, readModels } = side
    await log.created('g', ['alice', 'bob'])
    await log.created('h', ['bob', 'carol'])
    await side.settled()
    expect(await readModels.memberships.sharing('bob', ['alice', 'carol', 'dave'])).toEqual(new Set(['alice', 'carol']))
    expect(await readModels.memberships.sharing('alice', ['carol'])).toEqual(new Set())
  })
})
