import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { pino } from 'pino'
import { type Cluster, CLUSTER_ROLE, clearLeftover, openCluster } from '../../src/postgres/cluster.js'
import { PostgresProcess } from '../../src/postgres/postgres-process.js'
import { freePort } from './free-port.js'

/** A real Postgres of a test's own, on a loopback port, that can be killed like a machine that loses power. */
export interface TestPostgres {
  /** The database `postgres` of the server. */
  connectionString: string
  /** A new empty database's connection string. */
  createDatabase(): Promise<string>
  /** SIGKILL: no shutdown, no checkpoint. Ends when the process is gone. */
  kill(): Promise<void>
  /** Starts the server again on the same data and port. Ends when it accepts. */
  restart(): Promise<void>
  /** Freezes and thaws all of the server's processes. */
  freeze(): void
  thaw(): void
  /** Undoes `kill` and `freeze`: a test that failed between must not fail the next one. */
  heal(): Promise<void>
  /** Starts a standby from a copy of the data as it is now; it receives nothing that is written from then on. Restarts this server. */
  startStandby(): Promise<TestStandby>
  stop(): Promise<void>
}

export interface TestStandby {
  port: number
  /** Makes it a server that is written to. */
  promote(): Promise<void>
  stop(): Promise<void>
}

const startTimeoutMs = 20_000
const silent = pino({ level: 'silent' })

export async function startTestPostgres(): Promise<TestPostgres> {
  const directory = await mkdtemp(join(tmpdir(), 'convolog-test-'))
  const cluster = await openCluster(directory)
  // A port, unlike the product: the tests put a proxy before it.
  const port = await freePort()
  const connectionString = connectionStringOf(port)
  let server = await launch(cluster, port)
  let isGone = false
  const signalAll = (signal: NodeJS.Signals) => signalFamily(server.pid!, signal)
  return {
    connectionString,
    createDatabase: () => createDatabase(connectionString),
    kill: async () => {
      isGone = true
      process.kill(server.pid!, 'SIGKILL')
      await server.exited
    },
    restart: async () => {
      server = await launch(cluster, port)
      isGone = false
    },
    freeze: () => signalAll('SIGSTOP'),
    thaw: () => signalAll('SIGCONT'),
    heal: async () => {
      if (!isGone) return signalAll('SIGCONT')
      server = await launch(cluster, port)
      isGone = false
    },
    startStandby: async () => {
      await server.stop()
      const copy = await mkdtemp(join(tmpdir(), 'convolog-test-'))
      await cp(directory, copy, { recursive: true })
      server = await launch(cluster, port)
      return launchStandby(copy)
    },
    stop: async () => {
      await server.stop()
      await removeDirectory(directory)
    },
  }
}

const removeDirectory = (directory: string) => rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })

async function launchStandby(directory: string): Promise<TestStandby> {
  const port = await freePort()
  await writeFile(join(directory, 'postgres/standby.signal'), '')
  const server = launchProcess(await openCluster(directory), port)
  const execute = async (statement: string) => {
    const client = new pg.Client({ connectionString: connectionStringOf(port) })
    try {
      await client.connect()
      await client.query(statement)
    } finally {
      await client.end().catch(() => {})
    }
  }
  const giveUpAt = Date.now() + startTimeoutMs
  const answers = () =>
    execute('SELECT').then(
      () => true,
      () => false,
    )
  while (!(await answers())) {
    if (Date.now() > giveUpAt) throw new Error('The standby does not answer')
    await sleep(20)
  }
  return {
    port,
    promote: () => execute('SELECT pg_promote()'),
    stop: async () => {
      await server.stop()
      await removeDirectory(directory)
    },
  }
}

const connectionStringOf = (port: number) => `postgres://${CLUSTER_ROLE}@127.0.0.1:${port}/postgres`

const launchProcess = (cluster: Cluster, port: number) =>
  new PostgresProcess(cluster, silent, { listen_addresses: '127.0.0.1', port, max_connections: 150, shared_buffers: '64MB' })

/** Tries until the server accepts: after a SIGKILL the orphans of the last one hold the data directory for a moment. */
async function launch(cluster: Cluster, port: number): Promise<PostgresProcess> {
  for (const giveUpAt = Date.now() + startTimeoutMs; ; ) {
    await clearLeftover(cluster)
    const server = launchProcess(cluster, port)
    try {
      await server.ready()
      return server
    } catch (error) {
      await server.stop()
      if (Date.now() > giveUpAt) throw error
      await sleep(20)
    }
  }
}

async function createDatabase(connectionString: string): Promise<string> {
  const name = `test_${randomBytes(6).toString('hex')}`
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query(`CREATE DATABASE ${name} STRATEGY file_copy`)
  await client.end()
  return connectionString.replace(/\/postgres$/, `/${name}`)
}

/** To a postmaster and its children. */
export function signalFamily(pid: number, signal: NodeJS.Signals): void {
  for (const one of [...childrenOf(pid), pid]) {
    try {
      process.kill(one, signal)
    } catch (error) {
      // It has ended meanwhile.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  }
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
}
