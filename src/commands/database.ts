import type { Config } from '../config.js'
import { DataDirInUse, acquireDataDirLock } from '../data-dir-lock.js'
import { type Logger, createLogger } from '../logging.js'
import { EmbeddedPostgres } from '../postgres/embedded-postgres.js'
import { Shutdown } from '../shutdown.js'

export type Work = (connectionString: string, logger: Logger) => Promise<void>

export interface OpenDatabase {
  connectionString: string
  /** Settles with an error when a Postgres of our own is lost for good, or the data directory to another server. */
  exited: Promise<Error | undefined>
}

const POSTGRES_STOP_MS_MAX = 12_000
const LOCK_RELEASE_MS_MAX = 1_000

/** Opens the database of DATABASE_URL, or a Postgres of its own in DATA_DIR, alone on that directory. `shutdown` ends it. */
export async function openDatabase(config: Config, logger: Logger, shutdown: Shutdown, signal?: AbortSignal): Promise<OpenDatabase> {
  for (const warning of config.warnings) logger.warn(warning)
  const lock = await acquireDataDirLock(config.dataDir, { logger })
  shutdown.add('lock of DATA_DIR', LOCK_RELEASE_MS_MAX, () => lock.release())
  if (config.databaseUrl) return { connectionString: config.databaseUrl, exited: lock.lost }
  const postgres = await EmbeddedPostgres.start({ dataDir: config.dataDir, logger, signal })
  shutdown.add('Postgres', POSTGRES_STOP_MS_MAX, () => postgres.stop(shutdown.leftMs))
  // Two servers must not write to one cluster, not even the last words of an orderly stop.
  void lock.lost.then(() => postgres.stop(0))
  return { connectionString: postgres.connectionString, exited: Promise.race([postgres.exited, lock.lost]) }
}

/** Runs with the database of DATABASE_URL, or with a Postgres of its own in DATA_DIR, alone on that directory. */
export async function withDatabase(config: Config, work: Work): Promise<void> {
  const logger = createLogger(config.logLevel)
  const shutdown = new Shutdown(logger)
  try {
    await work((await openDatabase(config, logger, shutdown)).connectionString, logger)
  } finally {
    await shutdown.run(POSTGRES_STOP_MS_MAX + LOCK_RELEASE_MS_MAX)
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
      await work(running?.connectionString ?? config.databaseUrl ?? '', createLogger(config.logLevel))
    } finally {
      await running?.detach()
    }
  }
}
