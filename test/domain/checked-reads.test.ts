import { beforeEach, describe, expect, test } from 'vitest'
import { GENERATION_REVISIONS } from '../../src/domain/conversation/state.js'
import { Conversations } from '../../src/domain/conversations.js'
import { Refusal } from '../../src/domain/errors.js'
import { conversationStream, newGroupId } from '../../src/domain/ids.js'
import { RecentChanges } from '../../src/domain/recent-changes.js'
import { Users } from '../../src/domain/users.js'
import type { Requester } from '../../src/domain/write-path/streams.js'
import { FakeHistory } from '../support/fake-history.js'
import { type Change, edit, join, recall, remove, sending, text } from '../support/given.js'
import { InMemoryEventStore } from '../support/in-memory-event-store.js'
import { InMemorySnapshots, LogBook } from '../support/notes.js'

const as = (userId: string): Requester => ({ actor: { userId }, correlationId: 'r' })
const LARGE = 1_000_000
const BEYOND_WINDOW = 2 * GENERATION_REVISIONS + 10

function makeNode(store = new InMemoryEventStore(), { isShared = false, cacheWeightMax = 64 << 20 } = {}) {
  const [snapshots, logger, history] = [new InMemorySnapshots(), new LogBook(), new FakeHistory(store.log)]
  const users = new Users({ store, snapshots, logger, cacheWeightMax: 8 << 20 })
  const conversations = new Conversations({ store, snapshots, history, users, logger, membersMax: 100, cacheWeightMax, isShared })
  return { store, history, conversations }
}
type TestNode = ReturnType<typeof makeNode>

/** Another node on the same log. */
const besides = ({ store }: TestNode) => makeNode(new InMemoryEventStore(store.log), { isShared: true })

let node: TestNode
let group: string

beforeEach(async () => {
  node = makeNode()
  group = newGroupId()
  const members = { conversationType: 'group', memberIds: ['ben'], joinPolicy: 'open' } as const
  await node.conversations.create({ type: 'CreateConversation', ...members }, group, as('anna'))
})

const send = (userId: string, clientMessageId: string, { conversations } = node) =>
  conversations.send(group, sending({ clientMessageId }), as(userId))
const change = (userId: string, command: Change, { conversations } = node) => conversations.execute(group, command, as(userId))
const chatter = (count: number) => Promise.all(Array.from({ length: count }, (_, i) => send('anna', `chat ${i}`)))
const logged = () => node.store.log.streams.get(conversationStream(group)) ?? []

async function codeOf(answer: Promise<unknown>): Promise<string> {
  const error = await answer.then(
    (value) => new Error(`not refused: ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (error instanceof Refusal) return error.code
  throw error
}

interface ShownEvent {
  seq: number
  type: string
  head: number
  data: { content?: unknown }
}
async function events(userId: string, after = -1, { conversations } = node): Promise<ShownEvent[]> {
  const { items } = await conversations.reads.events(group, { userId }, { after, limit: 100, bytesMax: LARGE })
  return items.map((item) => JSON.parse(item) as ShownEvent)
}

/** Does something once, in the middle of the next read of the conversation's stream. */
function duringNextRead(store: InMemoryEventStore, deed: () => Promise<unknown>): void {
  store.beforeRead = async (stream) => {
    if (stream !== conversationStream(group)) return
    store.beforeRead = () => undefined
    await deed()
  }
}

describe('a read in the middle of which', () => {
  test('its reader is removed is refused: what was said after the removal is not shown', async () => {
    duringNextRead(node.store, async () => {
      await change('anna', remove('ben'))
      await send('anna', 'secret')
    })
    expect(await codeOf(events('ben'))).toBe('not_found')
  })

  test('a message is recalled shows it no more', async () => {
    await send('anna', 'm1')
    await change('anna', edit(1, 'other words'))
    duringNextRead(node.store, () => change('anna', recall(1)))
    const shown = await events('ben')
    expect(shown.map(({ data }) => data.content)).toEqual([undefined, null, null, undefined])
    expect(shown.every(({ head }) => head === 3)).toBe(true)
  })

  test('a message is recalled shows it no more, though the table that was read knows nothing of it', async () => {
    await send('anna', 'm1')
    const found = { asOf: 1, content: 'the words' }
    const shown = await node.conversations.reads.read(
      group,
      { userId: 'ben' },
      {
        find: async () => {
          await change('anna', recall(1))
          return found
        },
        knowsRecallsTo: ({ asOf }) => asOf,
        show: ({ content }) => (node.conversations.reads.isRecalled(group, 1) ? null : content),
      },
    )
    expect(shown).toBeNull()
  })

  test('the window moves on is done again once the table has come as far', async () => {
    await send('anna', 'm1')
    await change('anna', recall(1))
    let finds = 0
    const read = () =>
      node.conversations.reads.read(
        group,
        { userId: 'ben' },
        {
          find: async () => {
            finds += 1
            if (finds === 1) await chatter(BEYOND_WINDOW)
            return { asOf: finds === 1 ? 1 : logged().length - 1 }
          },
          knowsRecallsTo: ({ asOf }) => asOf,
          show: ({ asOf }) => asOf,
        },
      )
    expect(await read()).toBe(logged().length - 1)
    expect(finds).toBe(2)
    node.history.isStuck = true
    finds = 0
    expect(await codeOf(read())).toBe('unavailable')
  })

  test('its reader is removed and its state forgotten is refused', async () => {
    const small = makeNode(node.store, { cacheWeightMax: 64 })
    const read = small.conversations.reads.read(
      group,
      { userId: 'ben' },
      { find: () => change('anna', remove('ben'), small), show: () => 'the secret' },
    )
    expect(await codeOf(read)).toBe('not_found')
  })
})

describe('where another node writes to the same log', () => {
  test('a read that finds more than memory knows is checked by all of it', async () => {
    const other = besides(node)
    await events('ben', -1, other)
    duringNextRead(other.store, async () => {
      await change('anna', remove('ben'))
      await send('anna', 'secret')
    })
    expect(await codeOf(events('ben', -1, other))).toBe('not_found')
  })

  test('who has just become a member there is known to be one here', async () => {
    const other = besides(node)
    expect(await codeOf(other.conversations.open(group, { userId: 'zoe' }))).toBe('not_found')
    await change('zoe', join)
    expect((await other.conversations.open(group, { userId: 'zoe' })).member).not.toBeNull()
  })

  test('a cursor may be moved to what was sent there', async () => {
    const other = besides(node)
    await other.conversations.open(group, { userId: 'ben' })
    const { seq } = await send('anna', 'm1')
    expect(await other.conversations.markRead(group, seq, as('ben'))).toMatchObject({ readSeq: seq })
    expect(await codeOf(other.conversations.markRead(group, seq + 1, as('ben')))).toBe('invalid_request')
  })

  test('many refusals at once cost two looks at the log', async () => {
    const other = besides(node)
    await other.conversations.open(group, { userId: 'ben' })
    const before = other.store.reads
    const codes = await Promise.all(
      Array.from({ length: 50 }, (_, i) => codeOf(other.conversations.open(group, { userId: `stranger ${i}` }))),
    )
    expect(new Set(codes)).toEqual(new Set(['not_found']))
    expect(other.store.reads - before).toBeLessThanOrEqual(2)
  })

  test('of a node that writes alone a refusal costs none', async () => {
    const before = node.store.reads
    expect(await codeOf(node.conversations.open(group, { userId: 'zoe' }))).toBe('not_found')
    expect(node.store.reads).toBe(before)
  })
})

describe('a page of events', () => {
  test('ends before it has too many bytes, and says that there is more', async () => {
    for (let n = 0; n < 10; n += 1)
      await node.conversations.send(group, sending({ clientMessageId: `m${n}`, content: text('x'.repeat(10_000)) }), as('anna'))
    const page = (after: number, bytesMax: number) =>
      node.conversations.reads.events(group, { userId: 'ben' }, { after, limit: 100, bytesMax })
    expect(await page(0, 35_000)).toMatchObject({ last: 3, head: 10, more: true })
    expect(await page(0, 10)).toMatchObject({ last: 1, more: true })
    expect(await page(7, 35_000)).toMatchObject({ last: 10, more: false })
  })
})

describe('events for a device', () => {
  test('are all of them for a member, and only its own departure for a former one, of no later head', async () => {
    await send('anna', 'm1')
    const { seq } = await change('anna', remove('ben'))
    await send('anna', 'secret')
    const { reads } = node.conversations
    const forAnna = await reads.eventsFor('anna', group, logged())
    expect(forAnna.map((event) => event.seq)).toEqual([0, 1, 2, 3])
    const forBen = await reads.eventsFor('ben', group, logged())
    expect(forBen.map(({ text: json }) => JSON.parse(json) as ShownEvent)).toMatchObject([{ seq, head: seq, type: 'MemberRemoved' }])
    const again = await reads.encodedFor(
      'ben',
      group,
      forAnna.map((event) => event.text),
    )
    expect(again.map((json) => JSON.parse(json) as ShownEvent)).toMatchObject([{ seq, head: seq }])
  })

  test('that waited have lost what was recalled meanwhile', async () => {
    await send('anna', 'm1')
    const { reads } = node.conversations
    const encoded = (await reads.eventsFor('ben', group, logged())).map((event) => event.text)
    expect(JSON.parse(encoded[1]!)).toMatchObject({ data: { content: text('hello') } })
    await change('anna', recall(1))
    const [, blanked] = await reads.encodedFor('ben', group, encoded)
    expect(JSON.parse(blanked!)).toMatchObject({ data: { content: null } })
  })
})

describe('rows of conversations', () => {
  const rowsAt = (...positions: string[]) =>
    node.conversations.reads.readRows(
      async () => ({ position: positions.shift()! }),
      (found) => found,
    )

  test('that were read before the feed of this node began are read again', async () => {
    const [before, began] = [node.store.log.head(), (await send('anna', 'm1')).position]
    node.conversations.followFrom(began)
    expect(await rowsAt(before, began)).toEqual({ position: began })
    expect(node.history.asked).toContain(`waitForPosition ${began}`)
    node.history.isStuck = true
    expect(await codeOf(rowsAt(before, began))).toBe('unavailable')
  })

  test('are those of who left as soon as that was acknowledged, also where the state is not in memory', async () => {
    const small = makeNode(node.store, { cacheWeightMax: 64 })
    await send('anna', 'm1')
    await change('anna', recall(1), small)
    await change('anna', remove('ben'), small)
    const { reads } = small.conversations
    expect(reads.hasLeft(group, 'ben')).toBe(true)
    expect(reads.isRecalled(group, 1)).toBe(true)
    await change('ben', join, small)
    expect(reads.hasLeft(group, 'ben')).toBe(false)
    expect(reads.isStillMember(group, 'ben', 0)).toBe(false)
    expect(reads.isStillMember(group, 'ben', logged().length - 1)).toBe(true)
  })

  test('show no recalled message once that it is recalled was said, by whichever node it was', async () => {
    const other = makeNode(new InMemoryEventStore(node.store.log), { isShared: true, cacheWeightMax: 64 })
    await send('anna', 'm1')
    await change('anna', recall(1))
    expect(await change('anna', recall(1), other)).toMatchObject({ unchanged: true })
    expect(other.conversations.reads.isRecalled(group, 1)).toBe(true)
  })
})

describe('recent changes', () => {
  test('that had to be forgotten are asked of the tables', async () => {
    const changes = new RecentChanges()
    await send('anna', 'm1')
    await change('anna', recall(1))
    const recalling = logged().at(-1)!
    for (let n = 0; n < 50_000; n += 1) changes.take(`g${n}`, recalling)
    expect(changes.since).toBe('')
    expect(changes.recalled('g0')).toEqual(new Set([1]))
    changes.take('g50000', recalling)
    expect(changes.recalled('g0')).toBeUndefined()
    expect(changes.since).toBe(recalling.position)
  })

  test('may come again and out of order', async () => {
    const changes = new RecentChanges()
    await change('anna', remove('ben'))
    await change('ben', join)
    const [, left, back] = logged()
    changes.take(group, left!)
    changes.take(group, back!)
    changes.take(group, left!)
    expect(changes.membership(group, 'ben')).toEqual({ isMember: true, revision: 2 })
  })
})

describe('a change to a message that is sent in the same moment', () => {
  test('is decided on the message, whichever comes first to the log', async () => {
    const [, edited] = await Promise.all([send('ben', 'm1'), change('ben', edit(1, 'better'))])
    expect(edited).toMatchObject({ seq: 2, unchanged: false })
    const [, answered] = await Promise.all([
      send('ben', 'm2'),
      node.conversations.send(group, sending({ clientMessageId: 'm3', replyToSeq: 3 }), as('ben')),
    ])
    expect(answered).toMatchObject({ seq: 4 })
  })

  test('that is not sent is not found', async () => expect(await codeOf(change('ben', edit(1)))).toBe('not_found'))
})
