import { afterAll, beforeAll, describe } from 'vitest'
import type { EventStore } from '../../src/domain/event-store.js'
import { appendContract } from './append-contract.js'
import { crashContract } from './crash-contract.js'
import { feedContract } from './feed-contract.js'
import { processesContract } from './processes-contract.js'
import { readContract } from './read-contract.js'

/** What an adapter gives the suite. */
export interface Harness {
  /** A store on the harness's log; each call gives a further one, as another process would have it. */
  open(): Promise<EventStore>
  /** Arguments for `worker.mjs`, to reach the same log from another process: the adapter's name there and its options. */
  worker: { adapter: string; options: object }
  /** Kills the server without warning, and starts it again on the same data. Absent: those tests are skipped. */
  killServer?: () => Promise<void>
  restartServer?: () => Promise<void>
  /** Ends the harness; the stores are closed already. */
  close(): Promise<void>
}

/** One log for a whole suite, with a store on it that all its tests share. */
export interface Suite {
  harness: Harness
  store: EventStore
  /** A further store, closed with the suite. */
  another(): Promise<EventStore>
  /** A store on a log of its own that holds nothing; closed with the suite. */
  emptyLog(): Promise<EventStore>
}

/** Every promise of the event store port. Each part runs on a log of its own. */
export function eventStoreContract(name: string, makeHarness: () => Promise<Harness>): void {
  describe(`${name} keeps the promises of the event store port:`, () => {
    describe('append', () => appendContract(suite(makeHarness)))
    describe('read', () => readContract(suite(makeHarness)))
    describe('subscribe', () => feedContract(suite(makeHarness)))
    describe('several processes', () => processesContract(suite(makeHarness)))
    describe('a server that dies', () => crashContract(suite(makeHarness)))
  })
}

function suite(makeHarness: () => Promise<Harness>): Suite {
  const it = {} as Suite
  const opened: EventStore[] = []
  const harnesses: Harness[] = []
  const openOn = async (harness: Harness) => {
    const store = await harness.open()
    opened.push(store)
    return store
  }
  const newHarness = async () => {
    const harness = await makeHarness()
    harnesses.push(harness)
    return harness
  }
  beforeAll(async () => {
    it.harness = await newHarness()
    it.another = () => openOn(it.harness)
    it.emptyLog = async () => openOn(await newHarness())
    it.store = await it.another()
  })
  afterAll(async () => {
    await Promise.all(opened.map((store) => store.close()))
    await Promise.all(harnesses.map((harness) => harness.close()))
  })
  return it
}
