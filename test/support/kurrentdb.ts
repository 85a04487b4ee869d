import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { EventStoreDBClient } from '@eventstore/db-client'
import { freePort } from './free-port.js'

/** A real KurrentDB (or EventStoreDB) for tests. */
export interface TestKurrentDb {
  connectionString: string
  /** Absent where the server is not ours to kill. SIGKILL: no shutdown. Ends when the process is gone. */
  kill?: () => Promise<void>
  /** Starts the server again on the same data and port. Ends when it accepts. */
  restart?: () => Promise<void>
  /** Freezes and thaws the server. */
  freeze?: () => void
  thaw?: () => void
  /** Undoes `kill` and `freeze`: a test that failed between must not fail the next one. */
  heal?: () => Promise<void>
  stop(): Promise<void>
}

/** Where a server runs that tests may fill: without it they are skipped. */
export const testUrl = process.env['EVENTSTORE_TEST_URL']
/** A command that starts a server in the foreground: it is called with a data directory and a port of 127.0.0.1 (insecure). */
export const testStart = process.env['EVENTSTORE_TEST_START'] || undefined

const startTimeoutMs = 60_000

/** A server of the test's own where there is a command for that, else the shared one. */
export async function startTestKurrentDb(): Promise<TestKurrentDb> {
  if (testStart === undefined) return { connectionString: testUrl!, stop: async () => {} }
  const directory = await mkdtemp(join(tmpdir(), 'convolog-test-esdb-'))
  const port = await freePort()
  const connectionString = `esdb://127.0.0.1:${port}?tls=false`
  const launch = async (): Promise<ReturnType<typeof spawn>> => {
    // Not through a shell: the process that is killed has to be the server itself, so the command ends in `exec`.
    const [program, ...args] = testStart.split(' ')
    const server = spawn(program!, [...args, directory, String(port)], { stdio: 'ignore', env: serverEnv() })
    await ready(connectionString, server)
    return server
  }
  let server = await launch()
  const isGone = () => server.exitCode !== null || server.signalCode !== null
  const kill = async (): Promise<void> => {
    if (isGone()) return
    server.kill('SIGKILL')
    await once(server, 'exit')
  }
  return {
    connectionString,
    kill,
    restart: async () => {
      server = await launch()
    },
    freeze: () => server.kill('SIGSTOP'),
    thaw: () => server.kill('SIGCONT'),
    heal: async () => {
      if (isGone()) server = await launch()
      else server.kill('SIGCONT')
    },
    stop: async () => {
      await kill()
      await rm(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
    },
  }
}

/** A name for a log of a test's own in a server that others use, too. */
export function streamPrefix(): string {
  return `t${randomBytes(6).toString('hex')}-`
}

/** The server takes all that begins with EVENTSTORE_ for options, and does not start with one that it does not know. */
function serverEnv(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('EVENTSTORE_TEST_')))
}

/** Ends when the server answers. */
async function ready(connectionString: string, server: ReturnType<typeof spawn>): Promise<void> {
  for (const giveUpAt = Date.now() + startTimeoutMs; ; ) {
    // A new client each time: one that has failed waits before it dials again.
    const client = EventStoreDBClient.connectionString(
      `${connectionString}&keepAliveInterval=${10_000 + Math.floor(Math.random() * 10_000)}`,
    )
    try {
      return await probe(client)
    } catch (error) {
      if (Date.now() > giveUpAt || server.exitCode !== null) throw error
      await sleep(100)
    } finally {
      await client.dispose()
    }
  }
}

async function probe(client: EventStoreDBClient): Promise<void> {
  for await (const _ of client.readAll({ maxCount: 1 })) break
}
