/** What the programs on the server's core have in common. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { WebSocket } from 'ws'
import { WebSocketServer } from 'ws'
import { EmbeddedPostgres } from '../../src/postgres/embedded-postgres.js'

export const logger = pino({ level: 'warn' })

export const tell = (result: object) => console.log(`result ${JSON.stringify(result)}`)

/** The same Postgres with the same settings as the server's; gone at the end. */
export async function withPostgres(work: (connectionString: string) => Promise<void>): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'convolog-bench-'))
  try {
    await withPostgresIn(dataDir, work)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}

/** The Postgres of a server that is stopped. */
export async function withPostgresIn(dataDir: string, work: (connectionString: string) => Promise<void>): Promise<void> {
  const postgres = await EmbeddedPostgres.start({ dataDir, logger })
  try {
    await work(postgres.connectionString)
  } finally {
    await postgres.stop()
  }
}

/** A WebSocket server that knows nothing; tells its address and serves until SIGTERM. */
export async function serveUntilStopped(onConnection: (ws: WebSocket) => void): Promise<void> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const sockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false })
  sockets.on('connection', onConnection)
  tell({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })
  await once(process, 'SIGTERM')
  server.closeAllConnections()
  server.close()
}
