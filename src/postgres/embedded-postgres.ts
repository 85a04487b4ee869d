import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { BaseLogger } from 'pino'
import { StartError } from '../start-error.js'
import { type Cluster, CLUSTER_ROLE, clearLeftover, clusterDir, isServed, openCluster } from './cluster.js'
import { PostgresProcess } from './postgres-process.js'

export type EmbeddedPostgresOptions = {
  readonly dataDir: string
  readonly logger: BaseLogger
  /** Breaks a start off. */
  readonly signal?: AbortSignal | undefined
}

const DATABASE = 'convolog'
/** The shortest bound of the systems we run on, for the whole path of a socket. */
const SOCKET_PATH_BYTES_MAX = 103
/** To make the database on the first start, on a disk that is slow. */
const DATABASE_MS_MAX = 60_000
const RESTART_DELAY_MS_MIN = 50
const RESTART_DELAY_MS_MAX = 5_000
const RESTART_GIVE_UP_MS = 120_000

/**
 * A real Postgres as a child process, on a cluster in the data directory. It is reached through a Unix socket in the
 * cluster's folder, which nobody else can enter: no password to keep, no port that others can take or reach.
 * It ends with this process, and is started again when it ends by itself.
 */
export class EmbeddedPostgres {
  readonly connectionString: string
  /** Settles when it is over: with undefined after `stop`, with the reason when it could not be brought back. */
  readonly exited: Promise<Error | undefined>
  readonly #cluster: Cluster
  readonly #socket: ClientSocket
  readonly #logger: BaseLogger
  readonly #stopping = new AbortController()
  #process: PostgresProcess

  /** Starts it, and makes the cluster and the database on the first start. The caller holds the data directory's lock. */
  static async start({ dataDir, logger, signal }: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
    const cluster = await openCluster(dataDir, signal)
    const process = await serve(
      cluster,
      logger,
      (error) => new StartError(`The embedded Postgres in ${cluster.dir} did not start: ${error.message}.`),
      signal,
    )
    let socket: ClientSocket | undefined
    try {
      socket = await clientSocket(cluster.dir)
      await createDatabase(socket)
      return new EmbeddedPostgres(cluster, socket, process, logger)
    } catch (error) {
      await process.stop()
      await socket?.remove()
      throw error
    }
  }

  /** A way to the Postgres that another process runs on this data directory, in which nothing is changed. */
  static async attach(dataDir: string): Promise<{ connectionString: string; detach(): Promise<void> }> {
    const dir = await clusterDir(dataDir)
    if (!(await isServed(dir))) throw new StartError(`The server that uses DATA_DIR ${dataDir} is not ready yet: try again in a moment.`)
    const socket = await clientSocket(dir)
    return { connectionString: connectionString(socket, DATABASE), detach: () => socket.remove() }
  }

  private constructor(cluster: Cluster, socket: ClientSocket, process: PostgresProcess, logger: BaseLogger) {
    this.connectionString = connectionString(socket, DATABASE)
    this.#cluster = cluster
    this.#socket = socket
    this.#process = process
    this.#logger = logger
    this.exited = this.#supervise()
  }

  /** The process id of the server that runs now, or ran last. */
  get pid(): number | undefined {
    return this.#process.pid
  }

  /** Disconnects everybody and writes everything to the disk; what takes longer than `withinMs` is killed, and recovers at the next start. */
  async stop(withinMs?: number): Promise<void> {
    this.#stopping.abort()
    await this.#process.stop(withinMs)
    await this.exited
  }

  async #supervise(): Promise<Error | undefined> {
    try {
      for (;;) {
        const end = await this.#process.exited
        if (this.#stopping.signal.aborted) return undefined
        this.#logger.error({ end }, 'Postgres was lost and is being started again')
        await this.#bringBack()
        if (!this.#stopping.signal.aborted) this.#logger.warn({ pid: this.pid }, 'Postgres is back')
      }
    } catch (error) {
      return error as Error
    } finally {
      await this.#socket.remove()
    }
  }

  async #bringBack(): Promise<void> {
    const giveUpAt = Date.now() + RESTART_GIVE_UP_MS
    for (let delayMs = RESTART_DELAY_MS_MIN; !this.#stopping.signal.aborted; delayMs = Math.min(delayMs * 2, RESTART_DELAY_MS_MAX)) {
      await sleep(delayMs, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
      if (this.#stopping.signal.aborted) return
      try {
        await clearLeftover(this.#cluster)
        this.#process = new PostgresProcess(this.#cluster, this.#logger)
        if (this.#stopping.signal.aborted) await this.#process.stop()
        return await this.#process.ready()
      } catch (error) {
        if (this.#stopping.signal.aborted) return
        if (Date.now() > giveUpAt) throw new Error('Postgres could not be brought back', { cause: error })
      }
    }
  }
}

async function serve(
  cluster: Cluster,
  logger: BaseLogger,
  failed: (error: Error) => Error,
  signal: AbortSignal | undefined,
): Promise<PostgresProcess> {
  try {
    await clearLeftover(cluster)
    const process = new PostgresProcess(cluster, logger)
    await process.ready(signal).catch(async (error: unknown) => {
      await process.stop()
      throw error
    })
    return process
  } catch (error) {
    throw failed(error as Error)
  }
}

async function createDatabase(socket: ClientSocket): Promise<void> {
  const client = new pg.Client({
    connectionString: connectionString(socket, 'postgres'),
    connectionTimeoutMillis: DATABASE_MS_MAX,
    query_timeout: DATABASE_MS_MAX,
  })
  await client.connect()
  try {
    const { rowCount } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [DATABASE])
    if (rowCount === 0) await client.query(`CREATE DATABASE ${DATABASE}`)
  } finally {
    await client.end()
  }
}

type ClientSocket = { readonly dir: string; remove(): Promise<void> }

/** The folder to connect to: the cluster's, or a short link to it where a socket's path there would be too long. */
async function clientSocket(dir: string): Promise<ClientSocket> {
  const path = join(dir, '.s.PGSQL.5432')
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return { dir, remove: async () => {} }
  const link = join(await mkdtemp(join(tmpdir(), 'convolog-')), 'pg')
  await symlink(dir, link)
  return { dir: link, remove: () => rm(dirname(link), { recursive: true, force: true }) }
}

function connectionString({ dir }: ClientSocket, database: string): string {
  return `postgres://${CLUSTER_ROLE}@localhost/${database}?host=${encodeURIComponent(dir)}`
}
