import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { type App, startApp } from '../../src/app.js'
import { loadConfig } from '../../src/config.js'
import { loadSecrets } from '../../src/secrets.js'
import type { Times } from '../../src/gateway/times.js'
import { type TestPostgres, startTestPostgres } from './postgres.js'
import { APP_SECRET, JWT_SECRET, World } from './world.js'

export interface AppServerOptions {
  env?: Record<string, string>
  times?: Partial<Times>
}

/** A server in this process, on a database of its own. */
export async function startAppServer(connectionString: string, { env = {}, times }: AppServerOptions = {}): Promise<App> {
  const config = loadConfig({ PORT: '0', APP_KEYS: `app:${APP_SECRET}`, JWT_SECRET, FRAMES_PER_SECOND: '0', LOG_LEVEL: 'error', ...env })
  const secrets = await loadSecrets(config)
  return startApp({
    config,
    secrets,
    connectionString,
    logger: pino({ level: config.logLevel }),
    ...(times === undefined ? {} : { times }),
  })
}

/** One server for all tests of a file. After each test no socket may have seen what none may see. */
export function useServer(options: AppServerOptions = {}): () => World {
  let postgres: TestPostgres
  let app: App
  let world: World
  beforeAll(async () => {
    postgres = await startTestPostgres()
    app = await startAppServer(await postgres.createDatabase(), options)
    world = new World(app.url)
  })
  afterEach(() => expect(world.endDevices()).toEqual([]))
  afterAll(async () => {
    await app?.stop()
    await postgres?.stop()
  })
  return () => world
}
