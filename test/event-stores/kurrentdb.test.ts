import { afterAll, beforeAll, describe } from 'vitest'
import { KurrentDbEventStore, type KurrentDbEventStoreOptions } from '../../src/event-stores/kurrentdb/kurrentdb-event-store.js'
import { startTestKurrentDb, streamPrefix, type TestKurrentDb, testUrl } from '../support/kurrentdb.js'
import { eventStoreContract, type Harness } from './contract.js'

// A real server is not in the packages: where none is given, these are counted as skipped.
describe.skipIf(testUrl === undefined)('on a real server:', () => {
  let server: TestKurrentDb

  beforeAll(async () => {
    server = await startTestKurrentDb()
  }, 120_000)

  afterAll(async () => {
    await server.stop()
  })

  eventStoreContract('KurrentDbEventStore', () => harness({}))

  // Readers are behind the tail nearly always.
  eventStoreContract('KurrentDbEventStore with little memory', () => harness({ recentEventsMax: 5 }))

  async function harness(variant: Partial<KurrentDbEventStoreOptions>): Promise<Harness> {
    const options = { connectionString: server.connectionString, streamPrefix: streamPrefix(), settleMs: 1000, ...variant }
    return {
      open: () => KurrentDbEventStore.open(options),
      worker: { adapter: 'kurrentdb', options },
      ...(server.kill === undefined ? {} : { killServer: server.kill }),
      ...(server.restart === undefined ? {} : { restartServer: server.restart }),
      close: async () => {},
    }
  }
})
