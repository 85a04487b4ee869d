import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { freePort } from './free-port.js'

/** Tests that need it are skipped where it is not installed (scripts/redis.mjs says so). */
export const hasRedis = spawnSync('redis-server', ['--version'], { stdio: 'ignore' }).status === 0

/** A real Redis of a test's own, on a loopback port, that keeps nothing on disk. */
export interface TestRedis {
  url: string
  /** SIGKILL: it forgets everything. */
  kill(): Promise<void>
  /** Starts it again on the same port. */
  restart(): Promise<void>
  freeze(): void
  thaw(): void
  /** Undoes `kill` and `freeze`: a test that failed between must not fail the next one. */
  heal(): Promise<void>
  flush(): Promise<void>
  /** Every key with its TTL in ms; -1: none. */
  keys(): Promise<Map<string, number>>
  stop(): Promise<void>
}

const START_MS_MAX = 10_000

export async function startTestRedis(): Promise<TestRedis> {
  const port = await freePort()
  const url = `redis://127.0.0.1:${port}`
  let server = await launch(port)
  const asked = async <T>(ask: (redis: Redis) => Promise<T>): Promise<T> => {
    const redis = new Redis(url, { lazyConnect: true })
    try {
      return await ask(redis)
    } finally {
      redis.disconnect()
    }
  }
  const isGone = () => server.exitCode !== null || server.signalCode !== null
  return {
    url,
    kill: async () => {
      server.kill('SIGKILL')
      await once(server, 'exit')
    },
    restart: async () => {
      server = await launch(port)
    },
    freeze: () => void server.kill('SIGSTOP'),
    thaw: () => void server.kill('SIGCONT'),
    heal: async () => {
      if (isGone()) server = await launch(port)
      else server.kill('SIGCONT')
    },
    flush: () => asked(async (redis) => void (await redis.flushall())),
    keys: () =>
      asked(async (redis) => {
        const ttls = new Map<string, number>()
        for (const key of await redis.keys('*')) ttls.set(key, await redis.pttl(key))
        return ttls
      }),
    stop: async () => {
      if (isGone()) return
      server.kill('SIGKILL')
      await once(server, 'exit')
    },
  }
}

async function launch(port: number): Promise<ChildProcess> {
  const server = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/tmp'],
    { stdio: 'ignore' },
  )
  for (const giveUpAt = Date.now() + START_MS_MAX; ; await sleep(20)) {
    const redis = new Redis(port, '127.0.0.1', { lazyConnect: true, retryStrategy: () => null })
    redis.on('error', () => {})
    const answer = await redis
      .connect()
      .then(() => redis.ping())
      .catch(() => undefined)
    redis.disconnect()
    if (answer === 'PONG') return server
    if (Date.now() > giveUpAt || server.exitCode !== null) throw new Error('redis-server did not start')
  }
}
