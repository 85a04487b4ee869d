import { expect, test } from 'vitest'
import { type EventStore, RecordedEvent } from '../../src/domain/event-store.js'
import { run } from './simulation.js'
import { survey } from './survey.js'

const SEEDS = 1_000
/** On a machine that does other things too. */
const WITHIN_MS = 600_000

test(
  `${SEEDS} seeds show no client what it may not see`,
  async () => {
    const { findings } = await survey({ from: 1, count: SEEDS })
    expect(
      findings.map(({ kind, seed, text }) => `${kind}: ${text} (npm run simulate -- --seed ${seed})`),
      'replay a seed to see how it came to it',
    ).toEqual([])
  },
  WITHIN_MS,
)

test('a seed replays to the last event', async () => {
  const [first, again] = [await run({ seed: 7, isTraced: true }), await run({ seed: 7, isTraced: true })]
  expect(first.trace.length).toBeGreaterThan(100)
  expect(again).toEqual(first)
})

/** Stores that break a promise: whatever the simulator does not find in these it would find nowhere. */
const sabotages: Record<string, { sabotage: (store: EventStore) => EventStore; kinds: string[] }> = {
  'says of appends that they were written, and loses them': {
    sabotage: (store) =>
      changed(store, {
        append: async (append) => {
          const { stream, events } = append
          if (!stream.startsWith('conversation-') || append.expectedRevision % 5 !== 4) return store.append(append)
          const position = await store.head()
          return { outcome: 'appended', events: events.map((event) => RecordedEvent.committed(event, position)) }
        },
      }),
    kinds: ['not-durable', 'own-write', 'uncaught', 'other'],
  },
  'leaves events out of the live feed': {
    sabotage: (store) =>
      changed(store, {
        async *subscribeToAll(after, filter, signal) {
          for await (const item of store.subscribeToAll(after, filter, signal)) {
            if (item.kind !== 'events') yield item
            else {
              const events = item.events.filter(({ type, revision }) => type !== 'MessageSent' || revision % 5 !== 4)
              if (events.length > 0) yield { kind: 'events', events }
            }
          }
        },
      }),
    kinds: ['hole', 'incomplete', 'resume-ahead'],
  },
}

test.each(Object.keys(sabotages))('the simulator finds a store that %s', async (name) => {
  const { sabotage, kinds } = sabotages[name]!
  const found = new Set<string>()
  for (let seed = 1; seed <= 20 && !kinds.some((kind) => found.has(kind)); seed++)
    for (const { kind } of (await run({ seed, sabotage })).violations) found.add(kind)
  expect(kinds.filter((kind) => found.has(kind))).not.toEqual([])
})

function changed(store: EventStore, parts: Partial<EventStore>): EventStore {
  return new Proxy(store, { get: (target, name) => parts[name as keyof EventStore] ?? Reflect.get(target, name) })
}
