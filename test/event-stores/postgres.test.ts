import { afterAll, beforeAll } from 'vitest'
import { PostgresEventStore, type PostgresEventStoreOptions } from '../../src/event-stores/postgres/postgres-event-store.js'
import { startTestPostgres, type TestPostgres } from '../support/postgres.js'
import { eventStoreContract, type Harness } from './contract.js'

let postgres: TestPostgres

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)

afterAll(async () => {
  await postgres.stop()
})

eventStoreContract('PostgresEventStore', () => harness({}))

// Readers are behind the ring nearly always, and nothing announces what the other process wrote.
eventStoreContract('PostgresEventStore with little memory, polling,', () =>
  harness({ recentEventsMax: 5, notify: false, pollIntervalMs: 20 }),
)

async function harness(variant: Partial<PostgresEventStoreOptions>): Promise<Harness> {
  const options = { connectionString: await postgres.createDatabase(), settleMs: 1000, ...variant }
  return {
    open: () => PostgresEventStore.open(options),
    worker: { adapter: 'postgres', options },
    killServer: () => postgres.kill(),
    restartServer: () => postgres.restart(),
    close: async () => {},
  }
}
