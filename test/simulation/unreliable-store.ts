import {
  type Append,
  AppendOutcomeUnknown,
  type AppendResult,
  type EventStore,
  type FeedItem,
  StoreUnavailable,
} from '../../src/domain/event-store.js'
import type { InMemoryEventStore } from '../support/in-memory-event-store.js'
import type { Clock } from './clock.js'
import type { Weather } from './weather.js'

/** Asked and answered at once: nothing travels. */
const LOCAL = new Set<PropertyKey>(['isPosition', 'log', 'appends', 'faults', 'reads', 'beforeRead', 'constructor', 'then'])
const UNKNOWN_OUTCOMES = 0.015
const BROKEN_FEEDS = 0.01

/**
 * A node's way to the log: answers take time, fail, get lost after the append or before it, and the live feed lags, comes in
 * pieces and breaks. What the port promises is kept: an append that failed did not happen, one of unknown outcome may still happen.
 */
export function unreliable(inner: InMemoryEventStore, weather: Weather, clock: Clock, onAppended: () => void): EventStore {
  const parts: Partial<EventStore> = {
    append: (append) => appendThrough(inner, weather, clock, onAppended, append),
    subscribeToAll: (after, filter, signal) => lagging(inner.subscribeToAll(after, filter, signal), weather, clock, signal),
    close: () => inner.close(),
  }
  return new Proxy(inner, {
    get(target, name) {
      if (name in parts) return parts[name as keyof EventStore]
      const value = Reflect.get(target, name, target) as unknown
      if (typeof value !== 'function' || LOCAL.has(name)) return typeof value === 'function' ? value.bind(target) : value
      return async (...args: unknown[]) => {
        await weather.travel(true)
        weather.requireLog()
        const answer: unknown = await Reflect.apply(value, target, args)
        await weather.travel(true)
        weather.requireLog()
        return answer
      }
    },
  })
}

async function appendThrough(
  inner: InMemoryEventStore,
  weather: Weather,
  clock: Clock,
  onAppended: () => void,
  append: Append,
): Promise<AppendResult> {
  const happen = async () => {
    const result = await inner.append(append)
    onAppended()
    return result
  }
  await weather.travel()
  if (weather.isDead) {
    // The node has ended after it had sent this.
    if (weather.between(0, 1) < 0.5) await happen()
    throw new StoreUnavailable('the node has ended')
  }
  if (weather.isLogAway && weather.chance(0.5)) throw new StoreUnavailable('the log is away')
  if (weather.isLogAway || weather.chance(UNKNOWN_OUTCOMES)) {
    const fate = weather.between(0, 3)
    if (fate < 1) await happen()
    else if (fate < 2) clock.at(clock.now + weather.between(1, 500), () => void happen())
    throw new AppendOutcomeUnknown('the answer was lost')
  }
  const result = await happen()
  await weather.travel()
  return result
}

async function* lagging(items: AsyncIterable<FeedItem>, weather: Weather, clock: Clock, signal: AbortSignal): AsyncIterable<FeedItem> {
  for await (const item of items) {
    if (item.kind !== 'events') {
      yield item
      continue
    }
    for (let at = 0; at < item.events.length; ) {
      const count = weather.chance(0.3) ? 1 + Math.floor(weather.between(0, item.events.length - at)) : item.events.length - at
      await weather.feedLag(signal)
      // Of a node that has ended nobody hears any more.
      if (weather.isDead) await clock.delay(Infinity, signal)
      if (signal.aborted) return
      if (weather.chance(BROKEN_FEEDS)) throw new StoreUnavailable('the feed broke')
      yield { kind: 'events', events: item.events.slice(at, at + count) }
      at += count
    }
  }
}
