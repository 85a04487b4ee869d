import { setImmediate as nextTurn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Refusal } from '../../src/domain/errors.js'
import type { RecordedEvent } from '../../src/domain/event-store.js'
import { findBrokenLink } from '../support/hash-chain.js'
import {
  type Fault,
  InMemoryEventStore,
  InMemoryLog,
  unavailableNow,
  unknownButDone,
  unknownNotDone,
} from '../support/in-memory-event-store.js'
import { InMemorySnapshots, type NotesOutcome, type NotesStreams, clientIdOf, notesStreams, requester, say } from '../support/notes.js'

/** What may befall an append; `plain` is nothing. */
const faults: Record<string, Fault | undefined> = { plain: undefined, unavailableNow, unknownButDone, unknownNotDone }

const race = fc.record({
  /** Of each command: the node that is asked first, and the message; the same one comes from several devices. */
  commands: fc.array(fc.record({ node: fc.nat(1), id: fc.nat(15) }), { minLength: 2, maxLength: 25 }),
  /** How many turns each append and read takes, and what becomes of it. */
  turns: fc.array(fc.nat(4), { minLength: 1, maxLength: 20 }),
  fates: fc.array(fc.constantFrom('plain', 'plain', 'plain', ...Object.keys(faults)), { minLength: 1, maxLength: 20 }),
  follows: fc.boolean(),
})

test('two nodes that write at once: one dense order, every message exactly once, every answer true', async () => {
  await fc.assert(
    fc.asyncProperty(race, async ({ commands, turns, fates, follows }) => {
      const log = new InMemoryLog()
      const snapshots = new InMemorySnapshots()
      const stores = [0, 1].map((node) => unreliable(new InMemoryEventStore(log), turns.slice(node), fates.slice(node)))
      const nodes = stores.map((store) => notesStreams({ store, snapshots }))
      const stop = new AbortController()
      const feeds = follows ? nodes.map((node, i) => follow(node, stores[i]!, stop.signal)) : []

      const answers = await Promise.all(commands.map(({ node, id }) => untilAnswered(nodes, node, `m${id}`)))
      stop.abort()
      await Promise.all(feeds)

      const logged = log.streams.get('conversation-c') ?? []
      expect(logged.map((event) => event.revision)).toEqual(logged.map((_, i) => i))
      expect(findBrokenLink(logged)).toBeUndefined()
      const ids = logged.map(clientIdOf)
      expect(ids).toHaveLength(new Set(commands.map(({ id }) => id)).size)
      expect(new Set(ids)).toEqual(new Set(commands.map(({ id }) => `m${id}`)))
      for (const [i, answer] of answers.entries()) {
        const seq = answer.kind === 'resent' ? answer.seq : answer.kind === 'appended' ? answer.events[0]!.revision : -1
        expect(ids[seq]).toBe(`m${commands[i]!.id}`)
        if (answer.kind === 'appended') expect(answer.events[0]).toMatchObject({ position: logged[seq]!.position, id: logged[seq]!.id })
      }
      for (const node of nodes) await node.close()
      const ordinals = logged.map((event) => (event.data as { ordinal: number }).ordinal)
      expect(ordinals).toEqual(ids.map((_, i) => i + 1))
    }),
    { numRuns: 40 },
  )
})

/** A client: told to come back it does, on the other node, with the very same message. Nothing else may be said to it. */
async function untilAnswered(nodes: NotesStreams[], first: number, id: string): Promise<NotesOutcome> {
  for (let node = first; ; node = 1 - node) {
    try {
      return await nodes[node]!.execute('c', say(id), requester)
    } catch (error) {
      if (!(error instanceof Refusal && error.code === 'unavailable' && error.temporary)) throw error
    }
  }
}

function unreliable(store: InMemoryEventStore, turns: number[], fates: string[]): InMemoryEventStore {
  let asked = 0
  const wait = async () => {
    for (let left = turns[asked++ % Math.max(1, turns.length)] ?? 0; left > 0; left--) await nextTurn()
  }
  const append = store.append.bind(store)
  // Fates are used up: a store that never comes back would be waited for in vain.
  store.append = async (asking) => {
    const fault = faults[fates.shift() ?? 'plain']
    if (fault) store.faults.push(fault)
    const appending = async () => {
      await wait()
      return append(asking)
    }
    return appending()
  }
  store.beforeRead = wait
  return store
}

async function follow(node: NotesStreams, store: InMemoryEventStore, signal: AbortSignal): Promise<void> {
  for await (const item of store.subscribeToAll(undefined, {}, signal)) {
    if (item.kind === 'events') for (const event of item.events as RecordedEvent[]) node.follow('c', event)
  }
}
