/** Several nodes of the real server, on one Postgres and one Redis. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { pino } from 'pino'
import { CLUSTER_ROLE, openCluster } from '../src/postgres/cluster.js'
import { PostgresProcess } from '../src/postgres/postgres-process.js'
import { familyCpuMs, main, nodeOptions, removeFolder, temporaryFolder } from './processes.js'

const START_MS_MAX = 30_000
const STATISTICS_MS = 1_100
const JWT_SECRET = 'a secret for the bench alone'
const APP_SECRET = 'bench-secret-0123456789'

export interface Cluster {
  nodes: readonly ClusterNode[]
  token(userId: string): string
  /** Gives its id. */
  createGroup(owner: string, others: readonly string[]): Promise<string>
  /** The whole stream. */
  events(userId: string, conversationId: string): Promise<{ seq: number; clientMessageId: string | undefined }[]>
  /** How many the read models' Postgres has committed, whoever asked. */
  transactions(): Promise<number>
  /** CPU time so far, of a node and of Postgres with all that it has started. */
  cpuMs(node: ClusterNode): { node: number; postgres: number }
  stop(): Promise<void>
}

export class ClusterNode {
  readonly url: string
  readonly #env: Record<string, string>
  #child: ChildProcess | undefined

  constructor(port: number, env: Record<string, string>) {
    this.url = `http://127.0.0.1:${port}`
    this.#env = { ...env, PORT: String(port), HOST: '127.0.0.1' }
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  /** Ends when it is ready. */
  async start(): Promise<void> {
    const child = spawn(process.execPath, [...nodeOptions, main, 'serve'], {
      env: { PATH: process.env['PATH'] ?? '', ...this.#env },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    this.#child = child
    for (const giveUpAt = Date.now() + START_MS_MAX; Date.now() < giveUpAt; await sleep(20)) {
      if (
        await fetch(`${this.url}/health/ready`).then(
          ({ ok }) => ok,
          () => false,
        )
      )
        return
      if (child.exitCode !== null) break
    }
    throw new Error(`the node at ${this.url} did not start`)
  }

  kill(): Promise<void> {
    return this.#end('SIGKILL')
  }

  stop(): Promise<void> {
    return this.#end('SIGTERM')
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    await once(child, 'exit')
  }
}

/** `eventStoreUrl`: where the log is kept, when not in Postgres. */
export async function startCluster(count: number, eventStoreUrl?: string): Promise<Cluster> {
  const folder = temporaryFolder()
  const ports = await Promise.all(Array.from({ length: count + 2 }, freePort))
  const [postgresPort = 0, redisPort = 0, ...nodePorts] = ports
  const postgres = new PostgresProcess(await openCluster(folder), pino({ level: 'silent' }), {
    listen_addresses: '127.0.0.1',
    port: postgresPort,
    max_connections: 30 * count,
  })
  await postgres.ready()
  const redis = spawn(
    'redis-server',
    ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder],
    { stdio: 'ignore' },
  )
  redis.on('error', () => console.error('redis-server is not installed: node scripts/redis.mjs'))
  const env = {
    DATABASE_URL: `postgres://${CLUSTER_ROLE}@127.0.0.1:${postgresPort}/postgres`,
    REDIS_URL: `redis://127.0.0.1:${redisPort}`,
    APP_KEYS: `bench:${APP_SECRET}`,
    JWT_SECRET,
    FRAMES_PER_SECOND: '0',
    LOG_LEVEL: 'silent',
    ...(eventStoreUrl === undefined ? {} : { EVENTSTORE_URL: eventStoreUrl }),
  }
  const nodes = nodePorts.map((port, i) => new ClusterNode(port, { ...env, DATA_DIR: `${folder}/node-${i}` }))
  for (const node of nodes) await node.start()
  process.on('exit', () => {
    for (const node of nodes) void node.kill()
    redis.kill('SIGKILL')
  })

  const call = async (userId: string, method: string, path: string, body?: object): Promise<Record<string, unknown>> => {
    const headers = {
      authorization: `Bearer ${APP_SECRET}`,
      'on-behalf-of': userId,
      ...(body ? { 'content-type': 'application/json' } : {}),
    }
    const answer = await fetch(`${nodes[0]!.url}/v1${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return (await answer.json()) as Record<string, unknown>
  }
  return {
    nodes,
    token: tokenOf,
    createGroup: async (owner, others) =>
      (await call(owner, 'POST', '/conversations', { type: 'group', memberIds: others }))['conversationId'] as string,
    events: async (userId, conversationId) => {
      const all: { seq: number; clientMessageId: string | undefined }[] = []
      for (;;) {
        const { items } = (await call(
          userId,
          'GET',
          `/conversations/${conversationId}/events?limit=200&after=${all.at(-1)?.seq ?? -1}`,
        )) as { items: { seq: number; data: { clientMessageId?: string } }[] }
        if (items.length === 0) return all
        for (const { seq, data } of items) all.push({ seq, clientMessageId: data.clientMessageId })
      }
    },
    transactions: async () => {
      const client = new pg.Client({ connectionString: env.DATABASE_URL })
      await client.connect()
      // What a backend has counted it tells within a second.
      await sleep(STATISTICS_MS)
      const { rows } = await client.query<{ count: string }>("SELECT xact_commit AS count FROM pg_stat_database WHERE datname = 'postgres'")
      await client.end()
      return Number(rows[0]!.count)
    },
    cpuMs: (node) => ({ node: familyCpuMs(node.pid), postgres: familyCpuMs(postgres.pid!) }),
    stop: async () => {
      await Promise.all(nodes.map((node) => node.stop()))
      redis.kill('SIGKILL')
      await postgres.stop()
      removeFolder(folder)
    },
  }
}

function tokenOf(userId: string): string {
  const now = Math.floor(Date.now() / 1_000)
  const body = [
    { alg: 'HS256', typ: 'JWT' },
    { sub: userId, iat: now, exp: now + 3_600 },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${body}.${createHmac('sha256', JWT_SECRET).update(body).digest('base64url')}`
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
