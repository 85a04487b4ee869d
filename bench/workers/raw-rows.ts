/** The raw limit of (c): rows like those of the history into one table with its key, nothing read, nothing folded. */
import pg from 'pg'
import { bigints, integers, texts } from '../../src/projections/arrays.js'
import { cpuBetween, cpuOf } from '../processes.js'
import { tell, withPostgres } from './parts.js'

const ROWS = 5_000
const CONVERSATIONS = 200
const BATCHES = 60

const content = JSON.stringify({ type: 'text', text: 'x'.repeat(100) })

await withPostgres(async (connectionString) => {
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query(`
    SET synchronous_commit = off;
    CREATE TABLE raw (conversation_id text COLLATE "C", seq integer, ordinal integer, sender_id text, client_message_id text, content text, sent_at bigint, PRIMARY KEY (conversation_id, seq))`)
  const before = cpuOf(process.pid)
  for (let batch = 0; batch < BATCHES; batch++) await insert(client, rowsOf(batch))
  const { at, program, children } = cpuBetween(before, cpuOf(process.pid))
  tell({ perSecond: (ROWS * BATCHES * 1_000) / at, cpuMsPerRow: (program + children) / (ROWS * BATCHES) })
  await client.end()
})

function rowsOf(batch: number): { id: string; seq: number }[] {
  const each = ROWS / CONVERSATIONS
  return Array.from({ length: ROWS }, (_, i) => ({
    id: `d-${String(Math.floor(i / each)).padStart(43, '0')}`,
    seq: batch * each + (i % each),
  }))
}

async function insert(client: pg.Client, rows: readonly { id: string; seq: number }[]): Promise<void> {
  const seqs = integers(rows, ({ seq }) => seq)
  await client.query({
    name: 'insert',
    text: 'INSERT INTO raw SELECT * FROM unnest($1::text[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::bigint[])',
    values: [
      texts(rows, ({ id }) => id),
      seqs,
      seqs,
      texts(rows, ({ id }) => id.slice(-4)),
      texts(rows, ({ seq }) => `m${seq}`),
      texts(rows, () => content),
      bigints(rows, () => 1_700_000_000_000),
    ],
  })
}
