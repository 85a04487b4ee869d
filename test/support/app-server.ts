import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { type App, type AppOptions, startApp } from '../../src/app.js'
import { loadConfig } from '../../src/config.js'
import type { Logger } from '../../src/domain/logger.js'
import { loadSecrets } from '../../src/secrets.js'
import type { Times } from '../../src/gateway/times.js'
import { startLog, withoutLog } from './logs.js'
import { startTestPostgres } from './postgres.js'
import { startTestRedis } from './redis.js'
import { startRoundRobin } from './round-robin.js'
import { APP_SECRET, JWT_SECRET, World } from './world.js'

export interface AppServerOptions {
  env?: Record<string, string>
  times?: Partial<Times>
  load?: AppOptions['load']
  logger?: Logger
}

const PATIENCE_MS = 30_000

/** A server in this process, on a database of its own. */
export async function startAppServer(connectionString: string, { env = {}, times, load, logger }: AppServerOptions = {}): Promise<App> {
  const config = loadConfig({ PORT: '0', APP_KEYS: `app:${APP_SECRET}`, JWT_SECRET, FRAMES_PER_SECOND: '0', LOG_LEVEL: 'error', ...env })
  const secrets = await loadSecrets(config)
  return startApp({
    config,
    secrets,
    connectionString,
    logger: logger ?? pino({ level: config.logLevel }),
    ...(times === undefined ? {} : { times }),
    // The loop is the test's too, and other tests have the machine: that is no reason to refuse anything.
    load: { isGuarded: false, turns: { waitMsMax: PATIENCE_MS }, ...load },
  })
}

/** By hand: TEST_NODES=3 puts so many nodes with a shared Redis behind a load balancer, on KurrentDB where one is given. */
export const NODES = Number(process.env['TEST_NODES'] ?? 0)

/** One server for all tests of a file. After each test no socket may have seen what none may see. */
export function useServer(options: AppServerOptions = {}): () => World {
  const started: (() => Promise<void>)[] = []
  let world: World
  beforeAll(async () => {
    const postgres = await startTestPostgres()
    started.push(() => postgres.stop())
    const connectionString = await postgres.createDatabase()
    world = new World(
      NODES > 0 ? await startNodes(connectionString, options, started) : await startAlone(connectionString, options, started),
    )
  }, 120_000)
  afterEach(() => expect(world.endDevices()).toEqual([]))
  afterAll(async () => {
    for (const stop of started.reverse()) await stop()
  })
  return () => world
}

async function startAlone(connectionString: string, options: AppServerOptions, started: (() => Promise<void>)[]): Promise<string> {
  const app = await startAppServer(connectionString, options)
  started.push(() => app.stop())
  return app.url
}

/** Gives where the load balancer is. */
async function startNodes(connectionString: string, options: AppServerOptions, started: (() => Promise<void>)[]): Promise<string> {
  const [redis, log] = await Promise.all([startTestRedis(), startLog(withoutLog('KurrentDB') ? 'Postgres' : 'KurrentDB')])
  started.push(
    () => redis.stop(),
    () => log.stop(),
  )
  const env = { DATABASE_URL: connectionString, REDIS_URL: redis.url, ...log.env, ...options.env }
  const ports: number[] = []
  for (let n = 0; n < NODES; n += 1) ports.push(Number(new URL(await startAlone(connectionString, { ...options, env }, started)).port))
  const balancer = await startRoundRobin(ports)
  started.push(() => balancer.close())
  return balancer.url
}
