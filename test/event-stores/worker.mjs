// A process beside the test's own: appends to its streams, or follows the log, and says so line by line.
// Runs on dist/, so the sources have to be built first. Arguments: adapter options as JSON, role, role options as JSON.
import { randomUUID } from 'node:crypto'
import { ProposedEvent } from '../../dist/domain/event-store.js'
import { KurrentDbEventStore } from '../../dist/event-stores/kurrentdb/kurrentdb-event-store.js'
import { PostgresEventStore } from '../../dist/event-stores/postgres/postgres-event-store.js'

const adapters = {
  kurrentdb: (options) => KurrentDbEventStore.open(options),
  postgres: (options) => PostgresEventStore.open(options),
}
const [adapter, storeOptions, role, roleOptions] = process.argv.slice(2)
const store = await adapters[adapter](JSON.parse(storeOptions))
const options = JSON.parse(roleOptions)
console.log('ready')

if (role === 'append') {
  const { streams, perStream } = options
  await Promise.all(
    streams.map(async (stream) => {
      for (let revision = 0; revision < perStream; revision++) {
        const event = new ProposedEvent({
          id: randomUUID(),
          type: 'Tested',
          stream,
          revision,
          data: null,
          dataJson: 'null',
          metadata: { actor: { app: 'worker' }, at: 0, correlationId: '', causationId: null, schemaVersion: 1, hash: '' },
        })
        const { outcome } = await store.append({ stream, expectedRevision: revision - 1, events: [event] })
        if (outcome !== 'appended') throw new Error(`${stream}@${revision}: ${outcome}`)
      }
    }),
  )
} else {
  const stop = new AbortController()
  let left = options.events
  for await (const item of store.subscribeToAll(undefined, {}, stop.signal)) {
    if (item.kind !== 'events') continue
    console.log(JSON.stringify(item.events.map(({ position, stream, revision }) => [position, stream, revision])))
    if ((left -= item.events.length) <= 0) stop.abort()
  }
}
await store.close()
