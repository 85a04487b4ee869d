import fc from 'fast-check'
import { expect, test } from 'vitest'
import { NO_STREAM, type RecordedEvent } from '../../src/domain/event-store.js'
import type { Suite } from './contract.js'
import { appendOf, Follower, keys, seed, streamName, wholeLog } from './events.js'

export function feedContract(it: Suite): void {
  const follow = (after?: string, prefixes: string[] = [], store = it.store): Follower =>
    new Follower((signal) => store.subscribeToAll(after, { prefixes }, signal))

  test('gives what there is, says caughtUp once, and goes on live', async () => {
    const before = await seed(it.store, [streamName(), streamName()], 5)
    const follower = follow()
    await follower.until(() => follower.saidCaughtUp)
    expect(keys(follower.events)).toEqual(keys(await everything()))
    const live = await seed(it.store, [streamName(), streamName()], 5)
    await follower.until(() => follower.lastPosition === live.at(-1)!.position)
    expect(keys(follower.events).slice(-20)).toEqual(keys([...before, ...live]))
    expect(follower.items.filter((item) => item.kind === 'caughtUp')).toHaveLength(1)
    await follower.stop()
  })

  test('on an end that does not move: caughtUp with that position', async () => {
    const head = await it.store.head()
    const follower = follow(head)
    await follower.until(() => follower.saidCaughtUp)
    expect(follower.items).toEqual([{ kind: 'caughtUp', position: head }])
    await follower.stop()
  })

  test('from every position, while others write: no hole, no double', async () => {
    await seed(it.store, [streamName(), streamName(), streamName()], 10)
    const stores = [it.store, await it.another()]
    const shape = fc.record({
      from: fc.nat(),
      store: fc.nat(1),
      writer: fc.nat(1),
      writes: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 }),
    })
    await fc.assert(
      fc.asyncProperty(shape, async ({ from, store, writer, writes }) => {
        const log = await everything()
        const start = log[from % log.length]!.position
        const follower = follow(start, [], stores[store])
        const appends = writes.map((count) => stores[writer]!.append(appendOf(streamName(), NO_STREAM, count)))
        await Promise.all(appends)
        const head = await it.store.head()
        await follower.until(() => follower.lastPosition === head && follower.saidCaughtUp)
        await follower.stop()
        expect(keys(follower.events)).toEqual(keys((await everything()).filter((event) => event.position > start)))
      }),
      { numRuns: 25, verbose: 1 },
    )
  })

  test('waits for a slow reader, who loses nothing', async () => {
    const start = await it.store.head()
    const stop = new AbortController()
    const feed = it.store.subscribeToAll(start, {}, stop.signal)[Symbol.asyncIterator]()
    expect((await feed.next()).value).toEqual({ kind: 'caughtUp', position: start })
    const written = await seed(
      it.store,
      Array.from({ length: 20 }, () => streamName()),
      100,
    )
    const events: RecordedEvent[] = []
    while (events.length < written.length) {
      const { value } = await feed.next()
      if (value?.kind === 'events') events.push(...value.events)
    }
    expect(keys(events)).toEqual(keys(written))
    stop.abort()
    expect(await feed.next()).toEqual({ done: true, value: undefined })
  })

  test('through a filter: only what passes, and a place to resume from where nothing does', async () => {
    const start = await it.store.head()
    const [caughtUp, live] = [follow(start, ['user-', 'receipts-1']), follow(start, ['nothing-'])]
    await live.until(() => live.saidCaughtUp)
    const written = await seed(it.store, [streamName('user'), streamName('receipts-1'), streamName('receipts-2'), streamName()], 6)
    const end = written.at(-1)!.position
    const expected = keys(written.filter(({ stream }) => stream.startsWith('user-') || stream.startsWith('receipts-1')))
    const late = follow(start, ['user-', 'receipts-1'])
    for (const follower of [caughtUp, live, late]) await follower.until(() => follower.lastPosition! >= end)
    expect(keys(caughtUp.events)).toEqual(expected)
    expect(keys(late.events)).toEqual(expected)
    expect(live.events).toEqual([])
    expect(live.items.at(-1)).toEqual({ kind: 'checkpoint', position: end })
    await Promise.all([caughtUp, live, late].map((follower) => follower.stop()))
  })

  test('an aborted feed ends at once, whatever it was doing', async () => {
    const aborted = AbortSignal.abort()
    for await (const item of it.store.subscribeToAll(undefined, {}, aborted)) expect.unreachable(JSON.stringify(item))
    for await (const events of it.store.subscribeToStream(streamName(), NO_STREAM, aborted)) expect.unreachable(JSON.stringify(events))
    const starting = follow()
    await starting.stop()
    const waiting = follow(await it.store.head())
    await waiting.until(() => waiting.saidCaughtUp)
    await waiting.stop()
    for await (const item of it.store.subscribeToAll(undefined, {}, new AbortController().signal)) if (item.kind === 'events') break
  })

  test('a closed store ends its feeds', async () => {
    const store = await it.harness.open()
    const follower = follow(undefined, [], store)
    await follower.until(() => follower.saidCaughtUp)
    await store.close()
    await follower.stop()
  })

  test('of one stream: from after a revision, then live, and nothing of streams with a longer name', async () => {
    const stream = streamName()
    const past = await seed(it.store, [stream, `${stream}0`], 300)
    const stop = new AbortController()
    const events: RecordedEvent[] = []
    setImmediate(() => void Promise.all(Array.from({ length: 10 }, (_, i) => it.store.append(appendOf(stream, 299 + i)))))
    for await (const page of it.store.subscribeToStream(stream, 99, stop.signal)) {
      events.push(...page)
      if (events.at(-1)!.revision === 309) stop.abort()
    }
    expect(events.map((event) => event.revision)).toEqual(Array.from({ length: 210 }, (_, i) => 100 + i))
    expect(keys(events.slice(0, 200))).toEqual(keys(past.filter((event) => event.stream === stream).slice(100)))
  })

  async function everything(): Promise<RecordedEvent[]> {
    const events = await wholeLog(it.store)
    return events
  }
}
