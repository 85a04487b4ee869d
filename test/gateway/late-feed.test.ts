import { expect, onTestFinished, test, vi } from 'vitest'
import { Conversations } from '../../src/domain/conversations.js'
import type { FeedItem, Position } from '../../src/domain/event-store.js'
import { Users } from '../../src/domain/users.js'
import { followStates } from '../../src/domain/state-follower.js'
import type { Connection } from '../../src/gateway/connection.js'
import type { Delivery } from '../../src/gateway/delivery.js'
import { Hub } from '../../src/gateway/hub.js'
import type { ReadQueries } from '../../src/projections/read-models.js'
import { FakeHistory } from '../support/fake-history.js'
import { InMemoryEventStore, InMemoryLog } from '../support/in-memory-event-store.js'
import { InMemorySnapshots } from '../support/notes.js'
import { silent } from '../support/read-side.js'

/** A node on a shared log: its live feed brings what it has written when the test says so, later than the append's answer. */

const by = (userId: string) => ({ actor: { userId }, correlationId: 'test' })
const text = (said: string) => ({ type: 'text' as const, text: said })

/** Follows the log by hand: `bring` hands on what is new up to a seq of the only conversation, as one batch. */
class LateFeedStore extends InMemoryEventStore {
  #wake = () => {}
  #batches: FeedItem[] = []
  #brought = 0

  bring(count = Infinity): void {
    const events = this.log.events.slice(this.#brought, this.#brought + count)
    this.#brought += events.length
    this.#batches.push({ kind: 'events', events })
    this.#wake()
  }

  override async *subscribeToAll(_after: Position | undefined, _filter: unknown, signal: AbortSignal): AsyncIterable<FeedItem> {
    signal.addEventListener('abort', () => this.#wake())
    while (!signal.aborted) {
      yield* this.#batches.splice(0)
      if (!signal.aborted && this.#batches.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}

async function givenNode({ fanoutOnWriteMembersMax = 500 } = {}) {
  const store = new LateFeedStore(new InMemoryLog())
  const snapshots = new InMemorySnapshots()
  const users = new Users({ store, snapshots, logger: silent, cacheWeightMax: 10_000, isShared: true })
  const history = new FakeHistory(store.log)
  const conversations = new Conversations({
    store,
    snapshots,
    history,
    users,
    logger: silent,
    membersMax: 100,
    cacheWeightMax: 100_000,
    isShared: true,
  })
  const beginning = await store.head()
  const hub = new Hub({
    store,
    readModels: {
      memberships: { ofUser: async () => ({ position: beginning, conversations: [] }) },
      waitFor: async () => {},
    } as unknown as ReadQueries,
    logger: silent,
    fanoutOnWriteMembersMax,
    loadState: (id) => conversations.stateOf(id),
    isMuted: async () => false,
    isStillMember: () => true,
    recallsAhead: conversations.recallsAhead,
  })
  hub.onEvents = (events) => followStates(events, conversations, users)
  await hub.start()
  onTestFinished(() => hub.stop())
  const got = new Map<string, Delivery[]>()
  for (const userId of ['alice', 'bob', 'carol']) {
    const deliveries: Delivery[] = []
    got.set(userId, deliveries)
    const connection = { userId, activeConversationId: 'g', deliver: (one: Delivery) => deliveries.push(one), push: () => {} }
    await hub.enter(connection as unknown as Connection)
  }
  await conversations.create({ type: 'CreateConversation', conversationType: 'group', memberIds: ['bob', 'carol'] }, 'g', by('alice'))
  store.bring()
  const eventsOf = (userId: string) =>
    got
      .get(userId)!
      .flatMap(({ events }) => events)
      .map((event) => JSON.parse(event) as { seq: number; type: string; data: { content?: unknown } })
  const reached = (userId: string, seq: number) => vi.waitFor(() => expect(eventsOf(userId).at(-1)?.seq).toBe(seq))
  await reached('bob', 0)
  return {
    store,
    conversations,
    eventsOf,
    reached,
    send: (said: string) =>
      conversations.send('g', { type: 'SendMessage', clientMessageId: said, content: text(said) }, by('alice')).then(({ seq }) => seq),
    edit: (seq: number, said: string) => conversations.execute('g', { type: 'EditMessage', seq, content: text(said) }, by('alice')),
    recall: (seq: number) => conversations.execute('g', { type: 'RecallMessage', seq }, by('alice')),
  }
}
type Node = Awaited<ReturnType<typeof givenNode>>

const shown = (node: Node, userId = 'bob') => node.eventsOf(userId).map(({ seq, type, data }) => [seq, type, data.content])

test('a message whose recall this node has acknowledged is pushed without its content, and so are its edits', async () => {
  const node = await givenNode()
  const secret = await node.send('secret')
  await node.send('fine')
  await node.edit(secret, 'secret too')
  await node.recall(secret)
  for (let batch = 0; batch < 4; batch += 1) node.store.bring(1)
  await node.reached('bob', 4)
  expect(shown(node).slice(1)).toEqual([
    [1, 'MessageSent', null],
    [2, 'MessageSent', text('fine')],
    [3, 'MessageEdited', null],
    [4, 'MessageRecalled', undefined],
  ])
})

test('the same where another node recalled it, and this one answered that nothing changes', async () => {
  const node = await givenNode()
  const elsewhere = new Conversations({
    store: new InMemoryEventStore(node.store.log),
    snapshots: new InMemorySnapshots(),
    history: new FakeHistory(node.store.log),
    users: new Users({
      store: new InMemoryEventStore(node.store.log),
      snapshots: new InMemorySnapshots(),
      logger: silent,
      cacheWeightMax: 10_000,
    }),
    logger: silent,
    membersMax: 100,
    cacheWeightMax: 100_000,
  })
  const secret = await node.send('secret')
  await elsewhere.execute('g', { type: 'RecallMessage', seq: secret }, by('alice'))
  expect(await node.recall(secret)).toMatchObject({ unchanged: true })
  node.store.bring(1)
  await node.reached('bob', secret)
  expect(shown(node).at(-1)).toEqual([secret, 'MessageSent', null])
})

test('a message that waits to be merged leaves without its content once its recall is acknowledged', async () => {
  vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  // The first frame leaves at once; what follows within a moment waits.
  const node = await givenNode({ fanoutOnWriteMembersMax: 1 })
  const secret = await node.send('secret')
  node.store.bring()
  await node.recall(secret)
  await node.reached('bob', secret)
  expect(shown(node).at(-1)).toEqual([secret, 'MessageSent', null])
})

test('a recall that came in the same batch blanks also what an earlier frame of the batch carries', async () => {
  const node = await givenNode()
  const secret = await node.send('secret')
  await node.conversations.execute('g', { type: 'RemoveMember', userId: 'carol' }, by('alice'))
  await node.recall(secret)
  node.store.bring()
  await node.reached('bob', 3)
  expect(shown(node)[1]).toEqual([secret, 'MessageSent', null])
  expect(shown(node, 'carol')).toEqual([
    [0, 'ConversationCreated', undefined],
    [secret, 'MessageSent', null],
    [2, 'MemberRemoved', undefined],
  ])
})

test('whoever was removed gets what was said before, and nothing that was said after, however late the feed is', async () => {
  const node = await givenNode()
  await node.send('before')
  await node.conversations.execute('g', { type: 'RemoveMember', userId: 'carol' }, by('alice'))
  await node.send('after')
  for (let batch = 0; batch < 3; batch += 1) node.store.bring(1)
  await node.reached('bob', 3)
  expect(node.eventsOf('carol').map(({ seq }) => seq)).toEqual([0, 1, 2])
})

test('what is remembered for that ends with the feed', async () => {
  const node = await givenNode()
  const [one, two] = [await node.send('one'), await node.send('two')]
  await node.recall(one)
  await node.recall(two)
  expect([...node.conversations.recallsAhead.of('g')!.keys()]).toEqual([one, two])
  node.store.bring(3)
  await node.reached('bob', 3)
  expect([...node.conversations.recallsAhead.of('g')!.keys()]).toEqual([two])
  node.store.bring()
  await node.reached('bob', 4)
  expect(node.conversations.recallsAhead.of('g')).toBeUndefined()
  // The feed may be ahead of the answer, too.
  node.conversations.recallsAhead.add('g', two, node.store.log.events.at(-1)!.position)
  expect(node.conversations.recallsAhead.of('g')).toBeUndefined()
})
