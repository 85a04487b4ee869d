/** The raw limit of (a): WebSocket, and group commit of all that waits into one table. No logic, no projection, no delivery. */
import pg from 'pg'
import type { WebSocket } from 'ws'
import { texts } from '../../src/projections/arrays.js'
import { serveUntilStopped, withPostgres } from './parts.js'

interface Frame {
  type: string
  ref: number
  conversationId: string
}

interface Waiting {
  ws: WebSocket
  frame: Frame
  body: string
}

await withPostgres(async (connectionString) => {
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query('CREATE TABLE raw (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, conversation text, body text)')
  let waiting: Waiting[] = []
  let isRunning = false
  let position = 0

  const run = async () => {
    isRunning = true
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      const values = [texts(batch, ({ frame }) => frame.conversationId), texts(batch, ({ body }) => body)]
      await client.query({
        name: 'insert',
        text: 'INSERT INTO raw (conversation, body) SELECT * FROM unnest($1::text[], $2::text[])',
        values,
      })
      const sentAt = new Date().toISOString()
      for (const {
        ws,
        frame: { ref, conversationId },
      } of batch) {
        ws.send(
          JSON.stringify({
            type: 'ok',
            ref,
            conversationId,
            seq: ref,
            ordinal: ref,
            position: `${String(++position).padStart(16, '0')}.Ab3dE_9x`,
            sentAt,
          }),
        )
      }
    }
    isRunning = false
  }

  await serveUntilStopped((ws) => {
    ws.on('error', () => {})
    ws.on('message', (data: Buffer) => {
      const body = data.toString()
      const frame = JSON.parse(body) as Frame
      if (frame.type === 'hello') return ws.send(JSON.stringify({ type: 'ok', ref: frame.ref }))
      waiting.push({ ws, frame, body })
      if (!isRunning) setImmediate(() => void (isRunning || run()))
    })
  })
  await client.end()
})
