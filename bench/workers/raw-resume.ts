/** The raw limit of (d): one SELECT of the missed rows, ready to send, and one write. */
import pg from 'pg'
import { serveUntilStopped, withPostgres } from './parts.js'

const [missed = 0] = process.argv.slice(2).map(Number)

await withPostgres(async (connectionString) => {
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query('CREATE TABLE raw (conversation text, seq integer, body text, PRIMARY KEY (conversation, seq))')
  const body = `format('{"conversationId":"raw","seq":%s,"type":"MessageSent","at":"2025-01-01T00:00:00.000Z","actor":{"userId":"u1"},"data":{"clientMessageId":"m%s","ordinal":%s,"content":{"type":"text","text":"${'x'.repeat(100)}"}},"position":"0000000000001000","head":1000}', n, n, n)`
  await client.query(`INSERT INTO raw SELECT 'raw', n, ${body} FROM generate_series(1, ${missed}) AS n`)
  await serveUntilStopped((ws) => {
    ws.on('error', () => {})
    ws.on('message', () => {
      void client
        .query<[string]>({
          name: 'missed',
          text: 'SELECT body FROM raw WHERE conversation = $1 AND seq > 0 ORDER BY seq LIMIT $2',
          values: ['raw', missed],
          rowMode: 'array',
        })
        .then(({ rows }) => {
          ws.send('{"type":"ok","ref":0,"recovered":true}')
          ws.send(`{"type":"events","events":[${rows.map(([text]) => text).join(',')}],"resume":"0000000000001000"}`)
        })
    })
  })
  await client.end()
})
