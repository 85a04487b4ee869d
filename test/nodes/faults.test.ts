import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type TestKurrentDb, startTestKurrentDb, testStart } from '../support/kurrentdb.js'
import { type LossyProxy, startLossyProxy } from '../support/lossy-proxy.js'
import { Node } from '../support/nodes.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { type TestRedis, hasRedis, startTestRedis } from '../support/redis.js'
import { Scene } from '../support/scene.js'
import { type User, eventually } from '../support/world.js'

/** By hand: FAULT_PAUSE_MS=12000 also stops each part for so long, which is longer than anybody waits for an answer. */
const PAUSE_MS = Number(process.env['FAULT_PAUSE_MS'] ?? 0)
const DOWN_MS = 1_000
const SENDERS = 6
const MESSAGES_MAX = 10_000
/** Between two messages of a sender: traffic, not a flood. */
const SEND_PAUSE_MS = 10
/** Under traffic before and after the fault. */
const ENOUGH = 100

type TestServer = Omit<TestKurrentDb, 'connectionString'>

/** Something that the nodes need, behind a line that can be cut. */
interface Part {
  server: TestServer
  proxy: LossyProxy
}

type PartName = 'Postgres' | 'Redis' | 'KurrentDB'
type Fault = (part: Part) => Promise<void>

const faults: Record<string, Fault> = {
  'its line is cut': async ({ proxy }) => {
    proxy.cut()
    await sleep(DOWN_MS)
    proxy.mend()
  },
  'it is killed and started again': async ({ server }) => {
    await server.kill!()
    await sleep(DOWN_MS)
    await server.restart!()
  },
  ...(PAUSE_MS > 0 && {
    [`it stands still for ${PAUSE_MS} ms`]: async ({ server }: Part) => {
      server.freeze!()
      await sleep(PAUSE_MS)
      server.thaw!()
    },
  }),
}

describe.skipIf(!hasRedis)('with the log in Postgres', () => survives(['Postgres', 'Redis']))
// It has to be a server of the test's own.
describe.skipIf(!hasRedis || testStart === undefined)('with the log in KurrentDB', () => survives(['KurrentDB', 'Postgres', 'Redis']))

function survives(names: readonly PartName[]): void {
  const parts = {} as Record<PartName, Part>
  let nodes: Node[]

  beforeAll(async () => {
    const [postgres, redis, kurrentDb] = await Promise.all([
      startTestPostgres(),
      startTestRedis(),
      names.includes('KurrentDB') ? startTestKurrentDb() : undefined,
    ])
    const env = {
      DATABASE_URL: await putBehindProxy('Postgres', postgres, await postgres.createDatabase()),
      REDIS_URL: await putBehindProxy('Redis', redis, redis.url),
      ...(kurrentDb && { EVENTSTORE_URL: await putBehindProxy('KurrentDB', kurrentDb, kurrentDb.connectionString) }),
    }
    nodes = [await Node.start(env), await Node.start(env)]
  }, 120_000)
  afterEach(async () => {
    for (const { proxy, server } of Object.values(parts)) {
      proxy.mend()
      await server.heal?.()
    }
  }, 120_000)
  afterAll(async () => {
    await Promise.all((nodes ?? []).map((node) => node.stop()))
    for (const { proxy, server } of Object.values(parts)) {
      await proxy.close()
      await server.stop()
    }
  })

  /** Gives the URL that leads through it. */
  async function putBehindProxy(name: PartName, server: TestPostgres | TestRedis | TestKurrentDb, url: string): Promise<string> {
    const port = /(?<=:)\d+(?=[/?]|$)/.exec(url)![0]
    const proxy = await startLossyProxy(Number(port))
    parts[name] = { server, proxy }
    return url.replace(`:${port}`, `:${proxy.port}`)
  }

  for (const name of names)
    for (const [what, strike] of Object.entries(faults))
      test(`${name}, and ${what}: nothing is lost or doubled, all goes on by itself, and the log says so in a line each`, {
        timeout: 120_000,
      }, async () => {
        const saidBefore = nodes.map(({ lines }) => lines.length)
        const said = () => nodes.map(({ lines }, n) => lines.slice(saidBefore[n]).map(messageOf).sort())
        const expected = nodes.map(() => linesOf(name, names).sort())
        const users = Array.from({ length: SENDERS }, (_, n) => nodes[n % nodes.length]!.user('sender')) as [User, ...User[]]
        const scene = await Scene.begin({ users, messages: MESSAGES_MAX, atOnce: 1, pauseMs: SEND_PAUSE_MS })
        await scene.more(ENOUGH)
        await strike(parts[name])
        await scene.more(ENOUGH)
        await Promise.all(nodes.map(isWell))
        scene.finish()
        await scene.end()
        await scene.judge(nodes.map(({ world }) => world))
        await expect.poll(said, { timeout: 15_000 }).toEqual(expected)
      })
}

/** What a node says of this part, in a line each: that it is lost, and that it is back. */
function linesOf(name: PartName, all: readonly PartName[]): string[] {
  const lost = {
    Redis: ['Redis is lost: presence, typing and limits over several nodes stop until it is back', 'Redis is back'],
    KurrentDB: ['The log is lost; connecting again', 'The log is back'],
    Postgres: ['The database of the read models is lost; trying again', 'The database of the read models is back'],
  }
  const isLog = name === 'Postgres' && !all.includes('KurrentDB')
  return isLog ? [...lost[name], 'The database of the log is lost; connecting again', 'The database of the log is back'] : lost[name]
}

const messageOf = (line: string) => (JSON.parse(line) as { msg: string }).msg

/** Log, read models and presence answer. */
async function isWell(node: Node): Promise<void> {
  const [user, friend] = [node.user(), node.user()]
  await eventually(async () => (await node.world.call('/health/ready')).status === 200, 'the node to be ready', 30_000)
  const { position } = await eventually(() => user.group([friend]).catch(() => undefined), 'a write to go through', 30_000)
  await eventually(
    async () => (await user.call('GET', `/v1/inbox?minPosition=${position}`)).status === 200,
    'the read models to be current',
    30_000,
  )
  await eventually(
    async () => (await user.call('POST', '/v1/presence/query', { userIds: [friend.id] })).status === 200,
    'presence to be known',
    30_000,
  )
}
