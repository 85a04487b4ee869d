/**
 * `npm run bench -- stops [--stops 50] [--server-dir ../other-checkout]`: stops the server in the middle of each kind of traffic, in
 * turn by SIGTERM, SIGINT and SIGHUP, every other time by a signal to npm's own process, over many lives on one data folder. After
 * each stop no process may be left; whatever was acknowledged must be there, once, when it is started again.
 */
import { type AddressInfo, createServer } from 'node:net'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Row, milliseconds, printTable } from './figures.js'
import { HttpClient } from './hostile/http.js'
import { APP_SECRET, later } from './convolog.js'
import { type Stop, StoppedServer } from './stops/server.js'
import { Traffic, type TrafficKind, kindsOfTraffic } from './stops/traffic.js'

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const
const STOP_MS_GOAL = 15_000
/** Of the largest content, so that a page that nobody reads fills a socket. */
const LARGE_MESSAGES = 200
const TRAFFIC_MS = { min: 300, more: 700 }

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: { stops: { type: 'string', default: '50' }, 'server-dir': { type: 'string', default: process.cwd() } },
})

interface Round extends Stop {
  kind: TrafficKind
  how: string
}

const server = new StoppedServer(values['server-dir'], await freePort())
const rounds: Round[] = []
const acknowledged = new Map<string, number>()
const kinds = Object.keys(kindsOfTraffic) as TrafficKind[]

await server.start('node')
const place = await makeConversation()
for (let life = 0; life < Number(values.stops); life++) rounds.push(await liveOnce(life))
await server.start('node')
const lost = await missing()
const last = await server.stop('SIGTERM')
printTable([
  ...rowsOf(rounds),
  { what: 'acknowledged messages', figure: acknowledged.size.toLocaleString('en') },
  { what: '    lost or doubled', figure: String(lost), goal: '0' },
])
const isGood =
  lost === 0 && [...rounds, last].every(({ inTime, left, exit }) => inTime && left === 0 && (exit === 'code 0' || exit === 'SIGHUP'))
process.exit(isGood ? 0 : 1)

/** The first life is running already. */
async function liveOnce(life: number): Promise<Round> {
  const kind = kinds[life % kinds.length]!
  const starter = life % 2 === 0 ? 'node' : 'npm'
  const signal = SIGNALS[Math.floor(life / 2) % SIGNALS.length]!
  if (life === 0) await server.stop('SIGTERM')
  await server.start(starter)
  const traffic = new Traffic({ ...place, url: server.url, life })
  // Somebody always writes something that must not be lost.
  let n = 0
  void traffic.repeat(() => traffic.post(`p${life}-${n++}`))
  traffic.begin(kind)
  await sleep(TRAFFIC_MS.min + Math.random() * TRAFFIC_MS.more)
  const stop = await server.stop(signal)
  traffic.end()
  for (const [id, seq] of traffic.acknowledged) acknowledged.set(id, seq)
  const how = `${signal} to ${starter}`
  console.log(`${life + 1}: ${kind}, ${how}: ${milliseconds(stop.ms)}, ${stop.exit}, processes ${stop.before} → ${stop.left}`)
  return { ...stop, kind, how }
}

async function makeConversation(): Promise<{ conversationId: string; firstPosition: string }> {
  const http = new HttpClient(server.url, { connections: 8 })
  const ask = async (method: string, path: string, body: object) => {
    const { code, text } = await http.ask(APP_SECRET, method, path, body, { 'on-behalf-of': 'sender' })
    if (code !== '2xx') throw new Error(`${method} ${path}: ${code} ${text}`)
    return JSON.parse(text) as { conversationId: string; position: string }
  }
  const { conversationId, position } = await ask('POST', '/conversations', { type: 'group', memberIds: ['receiver'] })
  for (let n = 0; n < LARGE_MESSAGES; n++)
    // So many large messages are more than a user may send in a second.
    await later(() =>
      ask('POST', `/conversations/${conversationId}/messages`, {
        clientMessageId: `large-${n}`,
        content: { type: 'custom', data: { filling: 'y'.repeat(30_000) } },
      }),
    )
  http.close()
  return { conversationId, firstPosition: position }
}

/** How many that were acknowledged are not in the log once, at their seq. */
async function missing(): Promise<number> {
  const http = new HttpClient(server.url, { connections: 1 })
  const seqs = new Map<string, number[]>()
  for (let after = -1; ; ) {
    const { code, text } = await http.ask(
      APP_SECRET,
      'GET',
      `/conversations/${place.conversationId}/events?limit=200&after=${after}`,
      undefined,
      {
        'on-behalf-of': 'sender',
      },
    )
    if (code !== '2xx') throw new Error(`the events could not be read: ${code} ${text}`)
    const { items } = JSON.parse(text) as { items: { seq: number; data: { clientMessageId?: string } }[] }
    if (items.length === 0) break
    for (const { seq, data } of items)
      if (data.clientMessageId !== undefined) seqs.set(data.clientMessageId, [...(seqs.get(data.clientMessageId) ?? []), seq])
    after = items.at(-1)!.seq
  }
  http.close()
  return [...acknowledged].filter(([id, seq]) => seqs.get(id)?.length !== 1 || seqs.get(id)![0] !== seq).length
}

function rowsOf(all: readonly Round[]): Row[] {
  const rowOf = (what: string, some: readonly Round[], goal?: string): Row => {
    const slowest = some.toSorted((a, b) => b.ms - a.ms)[0]
    return {
      what: `${what}, ${some.length} stops`,
      figure: slowest ? `longest ${milliseconds(slowest.ms)} (${slowest.kind}, ${slowest.how})` : 'none',
      ...(goal === undefined ? {} : { goal }),
    }
  }
  const exits = new Map<string, number>()
  for (const { exit } of all) exits.set(exit, (exits.get(exit) ?? 0) + 1)
  return [
    rowOf('all', all, `≤ ${milliseconds(STOP_MS_GOAL)}`),
    ...kinds.map((kind) =>
      rowOf(
        `    ${kind}`,
        all.filter((round) => round.kind === kind),
      ),
    ),
    { what: 'exit codes', figure: [...exits].map(([exit, count]) => `${exit}: ${count}`).join(', '), goal: 'code 0' },
    {
      what: 'processes before and after',
      figure: `${Math.max(...all.map(({ before }) => before))} at most → ${Math.max(...all.map(({ left }) => left))} at most`,
      goal: '0 after',
    },
  ]
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  probe.close()
  return port
}
