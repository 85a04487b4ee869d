/** (large, history) A conversation of a million events against such of a thousand. */
import { Convolog, type FilledConversation } from './convolog.js'
import { Latencies, type Row, milliseconds, rate, rowAgainst } from './figures.js'
import { TurnSender, inTurns } from './turns.js'

const LONG = 1_000_000
const SHORT = 1_000
/** Several short ones, so that they are still short when all has been sent. */
const SHORTS = 20
const MESSAGES_PER_TURN = 20
const TURNS = 150
const PAGES = 300
const RESTARTS = 10
const GOAL = '≤ × 1.10'

const longId = 'g-bench-long'
const shortIds = Array.from({ length: SHORTS }, (_, i) => `g-bench-short-${i}`)
/** One for each window. They have sent a two-hundredth of all that is there. */
const senderIds = ['sender-1', 'sender-8']

export async function benchHistory(): Promise<Row[]> {
  const convolog = await Convolog.start()
  try {
    const filled = (conversationId: string, events: number): FilledConversation => ({
      conversationId,
      memberIds: ['filler', ...senderIds],
      messages: events - 1,
    })
    const { eventsPerSecond } = await convolog.fill([filled(longId, LONG), ...shortIds.map((id) => filled(id, SHORT))])
    const withoutSnapshot = new Latencies()
    await inTurns(1, [{ latencies: withoutSnapshot, call: () => open(convolog, longId, LONG - 1) }])
    return [
      {
        what: `(history) ${LONG.toLocaleString('en')} events: read models built anew`,
        figure: rate(eventsPerSecond, 'events'),
      },
      { what: '    opened for the very first time, without a snapshot', figure: milliseconds(withoutSnapshot.at(1)) },
      ...(await measurePages(convolog)),
      ...(await measureOpening(convolog)),
      await measureSends(convolog, 1),
      await measureSends(convolog, 8),
    ]
  } finally {
    await convolog.stop()
  }
}

const both = () => ({ long: new Latencies(), short: new Latencies() })

async function measureSends(convolog: Convolog, window: 1 | 8): Promise<Row> {
  const sender = await TurnSender.open(convolog, `sender-${window}`, [longId, ...shortIds])
  for (const id of [longId, ...shortIds]) await sender.turn(id, { messages: MESSAGES_PER_TURN, window })
  const took = both()
  for (let i = 0; i < TURNS; i++) {
    await sender.turn(longId, { messages: MESSAGES_PER_TURN, window, latencies: took.long })
    await sender.turn(shortIds[i % SHORTS]!, { messages: MESSAGES_PER_TURN, window, latencies: took.short })
  }
  await sender.close(convolog)
  return rowAgainst(`    send, window ${window} (raw: of ${SHORT.toLocaleString('en')})`, took.long, took.short, GOAL)
}

async function measurePages(convolog: Convolog): Promise<Row[]> {
  const took = both()
  await inTurns(PAGES, [
    { latencies: took.long, call: () => readNewest(convolog, longId, LONG - 1) },
    { latencies: took.short, call: () => readNewest(convolog, shortIds[0]!, SHORT - 1) },
  ])
  return [rowAgainst('    newest page', took.long, took.short, GOAL)]
}

/** The first request of each after a restart. Another is opened first, so that neither pays for what the server does once. */
async function measureOpening(convolog: Convolog): Promise<Row[]> {
  const took = both()
  for (let i = 0; i < RESTARTS; i++) {
    await convolog.restart()
    await open(convolog, shortIds[1]!, SHORT - 1)
    const calls = [
      { latencies: took.long, call: () => open(convolog, longId, LONG - 1) },
      { latencies: took.short, call: () => open(convolog, shortIds[0]!, SHORT - 1) },
    ]
    await inTurns(1, i % 2 === 0 ? calls : calls.toReversed())
  }
  return [rowAgainst(`    first opening after each of ${RESTARTS} restarts`, took.long, took.short, GOAL)]
}

async function open(convolog: Convolog, conversationId: string, expected: number): Promise<void> {
  const { head } = await convolog.call<{ head: number }>('filler', 'GET', `/conversations/${conversationId}`)
  if (head !== expected) throw new Error(`${conversationId} has its head at ${head} instead of ${expected}`)
}

async function readNewest(convolog: Convolog, conversationId: string, head: number): Promise<void> {
  const { items } = await convolog.call<{ items: { seq: number }[] }>('filler', 'GET', `/conversations/${conversationId}/messages`)
  if (items.length !== 50 || items.some(({ seq }, i) => seq !== head - 49 + i))
    throw new Error('the newest page is not the newest messages')
}
