import { expect, test } from 'vitest'
import { type ConversationState, evolve, noConversation } from '../../src/domain/conversation/state.js'
import type { Position } from '../../src/domain/event-store.js'
import { type ConversationEvent, factOf } from '../../src/domain/events.js'
import { conversationStream } from '../../src/domain/ids.js'
import { RecallsAhead } from '../../src/domain/recalls-ahead.js'
import type { Connection } from '../../src/gateway/connection.js'
import { Hub, type HubOptions } from '../../src/gateway/hub.js'
import { InMemoryEventStore, InMemoryLog } from '../support/in-memory-event-store.js'
import { LogWriter } from '../support/log-writer.js'
import { silent } from '../support/read-side.js'

/** A hub over tables that stand still at the beginning of the log, however far the feed is. */
async function givenHub(whenAsked: (log: LogWriter) => Promise<unknown>) {
  const store = new InMemoryEventStore(new InMemoryLog())
  const log = new LogWriter(store)
  const beginning: Position = await store.head()
  const loadState = async (id: string): Promise<ConversationState> =>
    (await store.readStream(conversationStream(id), { from: 0, limit: 1_000 })).events
      .map((event) => factOf<ConversationEvent>(event))
      .reduce(evolve, noConversation)
  const readModels = {
    memberships: { ofUser: async () => ({ position: beginning, conversations: [] }) },
    waitFor: () => Promise.reject(new Error('The tables stand still.')),
  } as unknown as HubOptions['readModels']
  let asked = 0
  const isMuted = async (_userId: string, id: string) => {
    // As if somebody added the user to another group each time that one is looked up.
    if (asked++ < 20) await whenAsked(log)
    return id === 'muted'
  }
  const hub = new Hub({
    store,
    readModels,
    logger: silent,
    fanoutOnWriteMembersMax: 500,
    loadState,
    isMuted,
    isStillMember: () => true,
    recallsAhead: new RecallsAhead(),
  })
  await hub.start()
  return { hub, log, settled: () => hub.reached(log.position) }
}

const connectionOf = (userId: string) => ({ userId, actor: { userId } }) as unknown as Connection

test('a user who is added to groups all the time is let in, into all of them, though the tables lag', async () => {
  let groups = 0
  const { hub, log, settled } = await givenHub(async (writer) => {
    await writer.created(`more-${groups++}`, ['owner', 'alice'])
    await hub.reached(writer.position)
  })
  await log.created('old', ['owner'])
  await log.sent('old', 'owner', 'before alice')
  await log.joined('old', 'alice')
  await log.sent('old', 'owner', 'one')
  await log.sent('old', 'owner', 'two', { mentions: ['alice'] })
  await log.joined('old', 'bob')
  await log.created('muted', ['owner', 'alice', 'bob'])
  await log.created('left', ['owner', 'alice'])
  await log.left('left', 'alice')
  await settled()

  const { conversations } = await hub.enter(connectionOf('alice'))
  expect([...conversations.keys()].sort()).toEqual(['muted', 'old', ...Array.from({ length: groups }, (_, i) => `more-${i}`)].sort())
  expect(groups).toBe(20)
  const old = conversations.get('old')!
  expect(old).toMatchObject({ joinedSeq: 2, readOrdinal: 1, mentionOrdinals: [3], muted: false })
  expect(old.audience).toMatchObject({ head: 5, lastOrdinal: 3, memberCount: 3 })
  expect(conversations.get('muted')).toMatchObject({ muted: true, readOrdinal: 0 })
  expect(conversations.get('muted')!.audience.memberCount).toBe(3)
  await hub.stop()
})
