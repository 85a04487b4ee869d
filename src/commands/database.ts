import type { Config } from '../config.js'
import { DataDirInUse, acquireDataDirLock } from '../data-dir-lock.js'
import { type Logger, createLogger } from '../logging.js'
import { EmbeddedPostgres } from '../postgres/embedded-postgres.js'

export type Work = (connectionString: string, logger: Logger, exited: Promise<Error | undefined>) => Promise<void>

const never = new Promise<undefined>(() => {})

/** Runs with the database of DATABASE_URL, or with a Postgres of its own in DATA_DIR, alone on that directory. */
export async function withDatabase(config: Config, work: Work): Promise<void> {
  const logger = createLogger(config.logLevel)
  for (const warning of config.warnings) logger.warn(warning)
  const lock = await acquireDataDirLock(config.dataDir)
  try {
    if (config.databaseUrl) return await work(config.databaseUrl, logger, never)
    const postgres = await EmbeddedPostgres.start({ dataDir: config.dataDir, logger })
    try {
      await work(postgres.connectionString, logger, postgres.exited)
    } finally {
      await postgres.stop()
    }
  } finally {
    await lock.release()
  }
}

/** The same beside a server that runs: on the Postgres that it has started. */
export async function besideServer(config: Config, work: Work): Promise<void> {
  try {
    await withDatabase(config, work)
  } catch (error) {
    if (!(error instanceof DataDirInUse)) throw error
    const running = config.databaseUrl ? undefined : await EmbeddedPostgres.attach(config.dataDir)
    try {
      await work(running?.connectionString ?? config.databaseUrl ?? '', createLogger(config.logLevel), never)
    } finally {
      await running?.detach()
    }
  }
}
