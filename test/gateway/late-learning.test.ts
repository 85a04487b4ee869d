import { expect, onTestFinished, test, vi } from 'vitest'
import { Conversations } from '../../src/domain/conversations.js'
import { Users } from '../../src/domain/users.js'
import type { Connection } from '../../src/gateway/connection.js'
import type { Delivery } from '../../src/gateway/delivery.js'
import { Hub } from '../../src/gateway/hub.js'
import type { ReadQueries } from '../../src/projections/read-models.js'
import { FakeHistory } from '../support/fake-history.js'
import { InMemoryEventStore, InMemoryLog } from '../support/in-memory-event-store.js'
import { InMemorySnapshots } from '../support/notes.js'
import { silent } from '../support/read-side.js'

/** The log answers, and what is looked up beside it does not. */

const GROUP = { type: 'CreateConversation', conversationType: 'group', memberIds: [] } as const

const by = (userId: string) => ({ actor: { userId }, correlationId: 'test' })

function nodeOf(log: InMemoryLog, snapshots: ConstructorParameters<typeof Users>[0]['snapshots']) {
  const store = new InMemoryEventStore(log)
  const users = new Users({ store, snapshots, logger: silent, cacheWeightMax: 1_000 })
  const history = new FakeHistory(log)
  const conversations = new Conversations({ store, snapshots, history, users, logger: silent, membersMax: 100, cacheWeightMax: 10_000 })
  return { store, users, conversations }
}

function connectionOf(userId: string): { connection: Connection; got: Delivery[]; pushed: string[] } {
  const got: Delivery[] = []
  const pushed: string[] = []
  const connection = {
    userId,
    activeConversationId: null,
    deliver: (delivery: Delivery) => got.push(delivery),
    push: (frame: Buffer) => pushed.push(frame.toString()),
  }
  return { connection: connection as unknown as Connection, got, pushed }
}

test('events go on to everybody while what somebody who joins needs does not come; it is corrected later', async () => {
  const log = new InMemoryLog()
  const elsewhere = nodeOf(log, new InMemorySnapshots()).conversations
  const create = async (creator: string) => (await elsewhere.create(GROUP, `g-of-${creator}`, by(creator))).conversationId
  const say = (conversationId: string, userId: string, id: string) =>
    elsewhere.send(conversationId, { type: 'SendMessage', clientMessageId: id, content: { type: 'text', text: id } }, by(userId))
  const [known, joined] = [await create('alice'), await create('carol')]
  for (const id of ['1', '2', '3']) await say(joined, 'carol', id)

  let answer = () => {}
  const silence = new Promise<void>((resolve) => (answer = resolve))
  const { store, users, conversations } = nodeOf(log, new InMemorySnapshots())
  const position = await store.head()
  const row = {
    type: 'group',
    head: 0,
    lastOrdinal: 0,
    memberCount: 1,
    joinedSeq: 0,
    joinedPosition: '',
    lastPosition: position,
    readOrdinal: 0,
  }
  const conversationsOf = (userId: string) =>
    userId === 'alice' ? [{ ...row, conversationId: known, mentionOrdinals: [], muted: false }] : []
  const readModels = {
    memberships: { ofUser: async (userId: string) => ({ position, conversations: conversationsOf(userId) }) },
    waitFor: async () => {},
  }
  const hub = new Hub({
    store,
    readModels: readModels as unknown as ReadQueries,
    logger: silent,
    fanoutOnWriteMembersMax: 500,
    loadState: async (id) => {
      await silence
      return conversations.stateOf(id)
    },
    isMuted: async (userId, id) => {
      await silence
      return (await users.load(userId)).state.marks.get(id)?.muted ?? false
    },
    isStillMember: () => true,
    recallsAhead: conversations.recallsAhead,
  })
  await hub.start()
  onTestFinished(() => hub.stop())
  const [alice, bob] = [connectionOf('alice'), connectionOf('bob')]
  await Promise.all([hub.enter(alice.connection), hub.enter(bob.connection)])

  await elsewhere.execute(joined, { type: 'AddMembers', userIds: ['bob'] }, by('carol'))
  await say(known, 'alice', 'while it is silent')
  await vi.waitFor(() => expect(alice.got.map(({ lastSeq }) => lastSeq)).toContain(1), { timeout: 10_000 })
  await vi.waitFor(() => expect(bob.got.map(({ conversationId }) => conversationId)).toContain(joined), { timeout: 10_000 })

  // Ordinals are dense, so that the next message says how many there were.
  await say(joined, 'carol', '4')
  await vi.waitFor(() => expect(bob.pushed.join()).toMatch(/"type":"unread","conversationId":"[^"]+","unread":1,"mentions":0,"total":1/), {
    timeout: 10_000,
  })
  answer()
  await vi.waitFor(() => expect(hub.audienceOf(joined)).toMatchObject({ isGuessed: false, memberCount: 2, lastOrdinal: 4 }), {
    timeout: 10_000,
  })
}, 60_000)

test('a snapshot that does not come is done without', async () => {
  const log = new InMemoryLog()
  const elsewhere = nodeOf(log, new InMemorySnapshots()).conversations
  const { conversationId } = await elsewhere.create(GROUP, 'g-of-carol', by('carol'))
  const silentSnapshots = { load: () => new Promise<undefined>(() => {}), save: () => new Promise<void>(() => {}), discard: async () => {} }
  const { conversations } = nodeOf(log, silentSnapshots)
  expect((await conversations.open(conversationId, { userId: 'carol' })).state.head).toBe(0)
})
