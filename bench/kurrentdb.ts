/**
 * `npm run bench -- kurrentdb --eventstore esdb://…`: appends through the adapter beside the same appends by the client alone, in turns,
 * so that whatever else the machine does meets both; then how soon a live reader has what was appended. It fills that server.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { EventStoreDBClient, NO_STREAM as CLIENT_NO_STREAM, jsonEvent } from '@eventstore/db-client'
import { NO_STREAM } from '../src/domain/event-store.js'
import { KurrentDbEventStore } from '../src/event-stores/kurrentdb/kurrentdb-event-store.js'
import { Latencies, type Row, byCpu, percent, printTable, rate } from './figures.js'
import { data, metadata, proposedAfter } from './sample-event.js'

const WARM_UP_MS = 1_000
const TURN_MS = 2_000
const TURNS = 4
const FEED_EVENTS = 2_000
const FEED_PAUSE_MS = 5
const SHAPES = [
  { streams: 16, perAppend: 1 },
  { streams: 256, perAppend: 1 },
  { streams: 64, perAppend: 10 },
]

const { values } = parseArgs({ args: process.argv.slice(2), options: { eventstore: { type: 'string' } } })
const connectionString = values.eventstore
if (connectionString === undefined) {
  console.error('Say which server may be filled: --eventstore esdb://127.0.0.1:2113?tls=false')
  process.exit(1)
}

/** Appends so many events to the end of a stream, after `revision`. */
type AppendSome = (stream: string, revision: number, count: number) => Promise<void>

const store = await KurrentDbEventStore.open({ connectionString, streamPrefix: `bench-${randomBytes(4).toString('hex')}-` })
const client = EventStoreDBClient.connectionString(connectionString)
const rows: Row[] = []
for (const shape of SHAPES) rows.push(await compare(shape))
rows.push(await measureFeed())
printTable(rows)
await store.close()
await client.dispose()
process.exit(0)

async function compare({ streams, perAppend }: { streams: number; perAppend: number }): Promise<Row> {
  const [adapter, raw] = [newSide(byAdapter, streams), newSide(byClient, streams)]
  for (let turn = 0; turn < TURNS; turn += 1)
    for (const side of turn % 2 === 0 ? [adapter, raw] : [raw, adapter]) await measure(side, perAppend)
  return {
    what: `${streams} streams, ${perAppend} event${perAppend === 1 ? '' : 's'} an append`,
    figure: rate(perSecond(adapter), 'events'),
    raw: rate(perSecond(raw), 'events'),
    ratio: percent(perSecond(adapter) / perSecond(raw)),
    byCpu: byCpu(adapter.cpuMs / adapter.events, raw.cpuMs / raw.events),
    goal: '≥ 90 %',
  }
}

interface Side {
  append: AppendSome
  streams: { name: string; revision: number }[]
  events: number
  ms: number
  /** Of this process. */
  cpuMs: number
}

function newSide(append: AppendSome, count: number): Side {
  const streams = Array.from({ length: count }, () => ({ name: `conversation-${randomUUID()}`, revision: NO_STREAM }))
  return { append, streams, events: 0, ms: 0, cpuMs: 0 }
}

function perSecond({ events, ms }: Side): number {
  return (events * 1_000) / ms
}

/** Each stream has one append on its way. */
async function measure(side: Side, perAppend: number): Promise<void> {
  let appended = 0
  let isRunning = true
  const appendTo = async (stream: Side['streams'][number]) => {
    await side.append(stream.name, stream.revision, perAppend)
    stream.revision += perAppend
    appended += perAppend
  }
  // Before it appends to a stream that it has not read, the adapter looks where the log ends; a node has read each by then.
  await Promise.all(side.streams.filter(({ revision }) => revision === NO_STREAM).map(appendTo))
  const writers = side.streams.map(async (stream) => {
    while (isRunning) await appendTo(stream)
  })
  await sleep(WARM_UP_MS)
  const [before, startedAt, cpuBefore] = [appended, performance.now(), process.cpuUsage()]
  await sleep(TURN_MS)
  const { user, system } = process.cpuUsage(cpuBefore)
  side.events += appended - before
  side.ms += performance.now() - startedAt
  side.cpuMs += (user + system) / 1_000
  isRunning = false
  await Promise.all(writers)
}

async function byAdapter(stream: string, revision: number, count: number): Promise<void> {
  const { outcome } = await store.append({ stream, expectedRevision: revision, events: proposedAfter(stream, revision, count) })
  if (outcome !== 'appended') throw new Error(`an append was a ${outcome}`)
}

async function byClient(stream: string, revision: number, count: number): Promise<void> {
  const events = Array.from({ length: count }, () => jsonEvent({ id: randomUUID(), type: 'MessageSent', data, metadata: { ...metadata } }))
  await client.appendToStream(stream, events, { expectedRevision: revision === NO_STREAM ? CLIENT_NO_STREAM : BigInt(revision) })
}

/** One append at a time: from its beginning to the acknowledgement, and to a reader of the live feed. */
async function measureFeed(): Promise<Row> {
  const [toReader, toAcknowledgement] = [new Latencies(), new Latencies()]
  const stream = `conversation-${randomUUID()}`
  const reading = new AbortController()
  let arrived: (() => void) | undefined
  const feed = store.subscribeToAll(await store.head(), { prefixes: [stream] }, reading.signal)
  const caughtUp = new Promise<void>((resolve) => {
    void (async () => {
      for await (const item of feed) {
        if (item.kind === 'caughtUp') resolve()
        else if (item.kind === 'events') arrived?.()
      }
    })()
  })
  await caughtUp
  for (let revision = NO_STREAM; revision < FEED_EVENTS; revision += 1) {
    const startedAt = performance.now()
    const arrival = new Promise<void>((resolve) => {
      arrived = resolve
    }).then(() => toReader.add(performance.now() - startedAt))
    await byAdapter(stream, revision, 1)
    toAcknowledgement.add(performance.now() - startedAt)
    await arrival
    await sleep(FEED_PAUSE_MS)
  }
  reading.abort()
  return { what: 'append to live reader (raw: to its acknowledgement)', figure: String(toReader), raw: String(toAcknowledgement) }
}
