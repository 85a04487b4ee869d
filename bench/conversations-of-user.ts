/**
 * `npm run bench -- conversations-of-user [--conversations 10,1000,10000] [--others 40000] [--rounds 40] [--server-dir ../checkout]`:
 * `hello`, and the first page of `GET /inbox`, of users in few and in many conversations, with tens of thousands of users in one
 * conversation each beside them, and fresh statistics.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { Convolog, inParallel, later } from './convolog.js'
import { Device } from './device.js'
import { Latencies, type Row, printTable, times } from './figures.js'
import { pinGenerator, pinning } from './processes.js'
import { inTurns } from './turns.js'

const AT_ONCE = 16
const GROUP_OF = 1_000
const CATCH_UP_MS_MAX = 180_000
/** Between rounds, so that what is measured is a user who comes now and then. */
const PAUSE_MS = 200

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    conversations: { type: 'string', default: '10,1000,10000' },
    others: { type: 'string', default: '40000' },
    rounds: { type: 'string', default: '40' },
    'server-dir': { type: 'string' },
  },
})
const counts = values.conversations
  .split(',')
  .map(Number)
  .toSorted((a, b) => a - b)
const nameOf = (count: number) => `in-${count}`

pinGenerator()
console.log(`Conversations of a user, ${pinning}, Node ${process.versions.node}`)
const convolog = await Convolog.start({ LOG_LEVEL: 'error' }, { serverDir: values['server-dir'] })
try {
  await fill()
  printTable(await measure())
} finally {
  await convolog.stop()
}
process.exit(0)

/** The first conversations have all of them, the last ones only who is in the most. */
async function fill(): Promise<void> {
  const startedAt = performance.now()
  const groups = Array.from({ length: counts.at(-1)! }, (_, i) => ({
    owner: `owner-${i}`,
    memberIds: counts.filter((count) => i < count).map(nameOf),
  }))
  for (let from = 0; from < Number(values.others); from += GROUP_OF)
    groups.push({ owner: `owner-of-${from}`, memberIds: Array.from({ length: GROUP_OF - 1 }, (_, i) => `other-${from + i}`) })
  const positions = await inParallel(groups, AT_ONCE, create)
  await convolog.caughtUp(nameOf(counts[0]!), positions.sort().at(-1)!, CATCH_UP_MS_MAX)
  await analyze()
  console.log(`${groups.length.toLocaleString('en')} conversations were made in ${Math.round((performance.now() - startedAt) / 1_000)} s`)
}

async function create({ owner, memberIds }: { owner: string; memberIds: readonly string[] }): Promise<string> {
  return (await later(() => convolog.call<{ position: string }>(owner, 'POST', '/conversations', { type: 'group', memberIds }))).position
}

/** As autovacuum does within a minute. */
async function analyze(): Promise<void> {
  const host = encodeURIComponent(`${convolog.dataDir}/postgres`)
  const client = new pg.Client({ connectionString: `postgres://convolog@localhost/convolog?host=${host}` })
  await client.connect()
  await client.query('ANALYZE')
  await client.end()
}

async function measure(): Promise<Row[]> {
  const took = counts.map((count) => ({ count, hello: new Latencies(), inbox: new Latencies() }))
  const calls = took.flatMap(({ count, hello, inbox }) => [
    { latencies: hello, call: () => sayHello(nameOf(count)) },
    { latencies: inbox, call: () => readInbox(nameOf(count), count) },
  ])
  // What is done for the first time is not measured.
  for (const { call } of calls) await call()
  await inTurns(Number(values.rounds), calls, () => sleep(PAUSE_MS))
  return (['hello', 'inbox'] as const).flatMap((what) =>
    took.map((of_) => ({
      what: `${what}, in ${of_.count.toLocaleString('en')} conversations`,
      figure: String(of_[what]),
      ratio: times(of_[what].at(0.5) / took[0]![what].at(0.5)),
      goal: what === 'hello' ? 'at most in proportion' : 'does not grow',
    })),
  )
}

async function sayHello(userId: string): Promise<void> {
  const device = await Device.open(convolog.url)
  await device.hello({ token: convolog.token(userId), deviceId: 'phone' })
  device.close()
}

async function readInbox(userId: string, count: number): Promise<void> {
  const { items } = await later(() => convolog.call<{ items: object[] }>(userId, 'GET', '/inbox'))
  if (items.length !== Math.min(50, count)) throw new Error(`${items.length} conversations are in the inbox`)
}
