/** (e) Appends of 200 streams, eight events of each in flight, through the adapter; and the same rows without it. */
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { NO_STREAM } from '../../src/domain/event-store.js'
import { numberOf } from '../../src/event-stores/postgres/positions.js'
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { texts } from '../../src/projections/arrays.js'
import { dataJson, metadata, proposedAfter } from '../sample-event.js'
import { tell, withPostgres } from './parts.js'

const STREAMS = 200
const IN_FLIGHT = 8
const WARM_UP_MS = 2_000
const MEASURED_MS = 5_000

await withPostgres(async (connectionString) => {
  const rawPerSecond = await measureRaw(connectionString)
  const store = await PostgresEventStore.open({ connectionString })
  const perSecond = await measure(store)
  await store.close()
  tell({ perSecond, rawPerSecond })
})

async function measure(store: PostgresEventStore): Promise<number> {
  let appended = 0
  let isRunning = true
  const write = async (stream: string): Promise<void> => {
    let revision = NO_STREAM
    while (isRunning) {
      const before = revision
      const result = await store.append({ stream, expectedRevision: before, events: proposedAfter(stream, before, IN_FLIGHT) })
      if (result.outcome !== 'appended') throw new Error(`an append was a ${result.outcome}`)
      revision += IN_FLIGHT
      appended += IN_FLIGHT
    }
    const [last] = (await store.readStream(stream, { direction: 'backwards', limit: 1 })).events
    if (last?.revision !== revision) throw new Error(`${stream} ends at ${last?.revision} instead of ${revision}`)
  }
  const writers = Array.from({ length: STREAMS }, (_, i) => write(`conversation-d-${String(i).padStart(43, '0')}`))
  await sleep(WARM_UP_MS)
  const [before, startedAt] = [appended, performance.now()]
  await sleep(MEASURED_MS)
  const perSecond = ((appended - before) * 1_000) / (performance.now() - startedAt)
  isRunning = false
  await Promise.all(writers)
  const head = numberOf(await store.head())
  if (head !== appended) throw new Error(`the log ends at ${head}, and ${appended} events were appended`)
  return perSecond
}

/** All that would be in flight as one statement, one after the other. */
async function measureRaw(connectionString: string): Promise<number> {
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.query('CREATE TABLE raw (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text, data text, metadata text)')
  const rows = Array.from({ length: STREAMS * IN_FLIGHT }, (_, i) => `conversation-d-${String(i % STREAMS).padStart(43, '0')}`)
  const insertFor = async (ms: number): Promise<number> => {
    const startedAt = performance.now()
    let inserted = 0
    while (performance.now() < startedAt + ms) {
      const values = [texts(rows, (stream) => stream), texts(rows, () => dataJson), texts(rows, () => JSON.stringify(metadata))]
      await client.query({
        name: 'insert',
        text: 'INSERT INTO raw (stream, data, metadata) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])',
        values,
      })
      inserted += rows.length
    }
    return (inserted * 1_000) / (performance.now() - startedAt)
  }
  await insertFor(WARM_UP_MS)
  const perSecond = await insertFor(MEASURED_MS / 2)
  await client.end()
  return perSecond
}
