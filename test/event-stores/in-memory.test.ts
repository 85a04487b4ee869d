import { describe } from 'vitest'
import type { EventStore } from '../../src/domain/event-store.js'
import { InMemoryEventStore, InMemoryLog } from '../support/in-memory-event-store.js'
import { appendContract } from './append-contract.js'
import type { Suite } from './contract.js'
import { feedContract } from './feed-contract.js'
import { readContract } from './read-contract.js'

// The double that the tests of the domain stand on. Processes and crashes it has none.
describe('InMemoryEventStore keeps the promises of the event store port:', () => {
  describe('append', () => appendContract(suite()))
  describe('read', () => readContract(suite()))
  describe('subscribe', () => feedContract(suite()))
})

function suite(): Suite {
  const log = new InMemoryLog()
  const open = async (): Promise<EventStore> => new InMemoryEventStore(log)
  return {
    store: new InMemoryEventStore(log),
    another: open,
    emptyLog: async () => new InMemoryEventStore(),
    harness: { open, worker: { adapter: 'none', options: {} }, close: async () => {} },
  }
}
