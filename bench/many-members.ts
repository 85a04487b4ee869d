/** (large, members) A group of 100,000 members against one of 10, with nobody of them online but the one who sends. */
import { Convolog } from './convolog.js'
import { Latencies, type Row, rate, rowAgainst } from './figures.js'
import { TurnSender, inTurns } from './turns.js'

const MEMBERS = 100_000
const FEW = 10
/** Both groups are long enough then for neither to know all its messages by heart. */
const WARM_UP_MESSAGES = 2_500
const TURNS = 150
const MESSAGES_PER_TURN = 40
const CALLS = 300
const RESTARTS = 10
const GOAL = '≤ × 1.10'

export async function benchMembers(): Promise<Row[]> {
  // Those who join while it is measured find room.
  const convolog = await Convolog.start({ GROUP_MEMBERS_MAX: String(2 * MEMBERS) })
  try {
    const startedAt = performance.now()
    const large = await createGroup(convolog, MEMBERS)
    const perSecond = (MEMBERS * 1_000) / (performance.now() - startedAt)
    const groups: Groups = { large, small: await createGroup(convolog, FEW) }
    return [
      { what: `(members) group of ${MEMBERS.toLocaleString('en')} made`, figure: rate(perSecond, 'members') },
      ...(await measureSends(convolog, groups)),
      ...(await measureCalls(convolog, groups, '')),
      ...(await measureOpening(convolog, groups)),
      ...(await measureCalls(convolog, groups, ' after a restart')),
    ]
  } finally {
    await convolog.stop()
  }
}

interface Groups {
  large: string
  small: string
}

const both = () => ({ large: new Latencies(), small: new Latencies() })

const createGroup = async (convolog: Convolog, members: number): Promise<string> => {
  const others = Array.from({ length: members - 1 }, (_, i) => `m${i + 1}`)
  return (await convolog.createGroup('owner', others)).conversationId
}

async function measureSends(convolog: Convolog, { large, small }: Groups): Promise<Row[]> {
  const sender = await TurnSender.open(convolog, 'owner', [large, small])
  for (const group of [large, small]) await sender.turn(group, { messages: WARM_UP_MESSAGES, window: 8 })
  const rows: Row[] = []
  for (const window of [1, 8]) {
    const took = both()
    for (let i = 0; i < TURNS; i++) {
      await sender.turn(large, { messages: MESSAGES_PER_TURN, window, latencies: took.large })
      await sender.turn(small, { messages: MESSAGES_PER_TURN, window, latencies: took.small })
    }
    rows.push(rowAgainst(`    send, window ${window} (raw: of ${FEW})`, took.large, took.small, GOAL))
  }
  await sender.close(convolog)
  return rows
}

async function measureCalls(convolog: Convolog, groups: Groups, when: string): Promise<Row[]> {
  const [opening, listing, joining] = [both(), both(), both()]
  const ofBoth = (took: ReturnType<typeof both>, call: (id: string, members: number) => Promise<unknown>) => [
    { latencies: took.large, call: () => call(groups.large, MEMBERS) },
    { latencies: took.small, call: () => call(groups.small, FEW) },
  ]
  await inTurns(
    CALLS,
    ofBoth(opening, (id, members) => open(convolog, id, members)),
  )
  await inTurns(
    CALLS,
    ofBoth(listing, (id, members) => list(convolog, id, members)),
  )
  await inTurns(
    CALLS,
    ofBoth(joining, (id) => convolog.call('joiner', 'POST', `/conversations/${id}/join`)),
    () => leave(convolog, groups),
  )
  return [
    rowAgainst(`    opening${when}`, opening.large, opening.small, GOAL),
    rowAgainst(`    first page of members${when}`, listing.large, listing.small),
    rowAgainst(`    joining${when}`, joining.large, joining.small, GOAL),
  ]
}

/** The first request of each after a restart. Another is opened first, so that neither pays for what the server does once. */
async function measureOpening(convolog: Convolog, groups: Groups): Promise<Row[]> {
  const took = both()
  const { conversationId: other } = await convolog.createDirect('owner', 'm1')
  for (let i = 0; i < RESTARTS; i++) {
    await convolog.restart()
    await convolog.call('owner', 'GET', `/conversations/${other}`)
    const calls = [
      { latencies: took.large, call: () => open(convolog, groups.large, MEMBERS) },
      { latencies: took.small, call: () => open(convolog, groups.small, FEW) },
    ]
    await inTurns(1, i % 2 === 0 ? calls : calls.toReversed())
  }
  return [rowAgainst(`    first opening after each of ${RESTARTS} restarts`, took.large, took.small)]
}

async function open(convolog: Convolog, conversationId: string, members: number): Promise<void> {
  const { memberCount } = await convolog.call<{ memberCount: number }>('owner', 'GET', `/conversations/${conversationId}`)
  if (memberCount !== members) throw new Error(`the group has ${memberCount} members instead of ${members}`)
}

async function list(convolog: Convolog, conversationId: string, members: number): Promise<void> {
  const { items } = await convolog.call<{ items: { userId: string }[] }>('owner', 'GET', `/conversations/${conversationId}/members`)
  const isWrong = items.some(({ userId }, i) => userId !== (i === 0 ? 'owner' : `m${i}`))
  if (items.length !== Math.min(members, 50) || isWrong) throw new Error('the first page of members is not the first who joined')
}

/** Untimed: the next round joins again, and the groups stay as large as they are. */
async function leave(convolog: Convolog, { large, small }: Groups): Promise<void> {
  for (const id of [large, small]) await convolog.call('joiner', 'POST', `/conversations/${id}/leave`)
}
