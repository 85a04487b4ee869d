import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { AppendOutcomeUnknown, NO_STREAM, StoreUnavailable } from '../../src/domain/event-store.js'
import { KurrentDbEventStore, type KurrentDbEventStoreOptions } from '../../src/event-stores/kurrentdb/kurrentdb-event-store.js'
import { startTestKurrentDb, streamPrefix, type TestKurrentDb, testUrl } from '../support/kurrentdb.js'
import { startLossyProxy } from '../support/lossy-proxy.js'
import { appendOf, Follower, keys, proposed, streamName } from './events.js'

describe('KurrentDbEventStore', () => {
  test('says where it cannot be opened', async () => {
    for (const url of ['esdb://127.0.0.1:1?tls=false', 'esdb://127.0.0.1:1,127.0.0.1:2?tls=false&maxDiscoverAttempts=1'])
      await expect(KurrentDbEventStore.open({ connectionString: url })).rejects.toThrow(StoreUnavailable)
  })
})

describe.skipIf(testUrl === undefined)('KurrentDbEventStore on a real server', () => {
  let server: TestKurrentDb
  let ownPrefix = streamPrefix()
  const closers: (() => Promise<void>)[] = []

  beforeAll(async () => {
    server = await startTestKurrentDb()
  }, 120_000)
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close()
    ownPrefix = streamPrefix()
  })
  afterAll(async () => {
    await server.stop()
  })

  test('settles appends whose acknowledgement was lost, and gives them to readers once', async () => {
    const proxy = await startLossyProxy(portOf(server.connectionString))
    closers.push(() => proxy.close())
    const store = await open({ connectionString: viaPort(server.connectionString, proxy.port) })
    const follower = new Follower((signal) => store.subscribeToAll(undefined, {}, signal))
    await store.append(appendOf(streamName(), NO_STREAM))
    await follower.until(() => follower.events.length === 1)
    for (let round = 0; round < 5; round++) {
      const before = follower.events.length
      proxy.loseNextAnswers()
      const results = await Promise.all([1, 2, 3].map((count) => store.append(appendOf(streamName(), NO_STREAM, count))))
      for (const result of results) expect(result.outcome).toMatch(/appended|duplicate/)
      await follower.until(() => follower.events.length === before + 6)
    }
    await follower.stop()
    expect(keys(follower.events)).toEqual(keys((await store.readAll(undefined, { limit: 100 })).events))
  })

  test('when one of two stores in a process loses its connection, the other goes on', async () => {
    const proxy = await startLossyProxy(portOf(server.connectionString))
    closers.push(() => proxy.close())
    const cut = await open({ connectionString: viaPort(server.connectionString, proxy.port) })
    const whole = await open()
    for (let round = 0; round < 20; round++) {
      const appends = Array.from({ length: 20 }, () => appendOf(streamName(), NO_STREAM))
      if (round % 2 === 1) proxy.loseNextAnswers()
      const results = await Promise.all(appends.map((append, i) => (i % 2 === 0 ? cut : whole).append(append)))
      for (const [i, { outcome }] of results.entries()) expect(outcome).toMatch(i % 2 === 0 ? /appended|duplicate/ : /appended/)
    }
  })

  test('calls unknown what a silent server may have done, and finds it done when the same is sent again', async ({ skip }) => {
    const { freeze, thaw } = server
    if (freeze === undefined || thaw === undefined) return skip('this server is not ours to freeze')
    const store = await open({ appendDeadlineMs: 300, settleMs: 200 })
    const follower = new Follower((signal) => store.subscribeToAll(undefined, {}, signal))
    await follower.until(() => follower.saidCaughtUp)
    const stream = streamName()
    await store.append(appendOf(stream, NO_STREAM))
    const append = appendOf(stream, 0)
    freeze()
    try {
      await expect(store.append(append)).rejects.toThrow(AppendOutcomeUnknown)
    } finally {
      thaw()
    }
    await expect
      .poll(async () => (await store.append(append).catch(() => undefined))?.outcome, { timeout: 50_000 })
      .toMatch(/appended|duplicate/)
    expect((await store.append(append)).outcome).toBe('duplicate')
    await follower.until(() => follower.events.at(-1)?.id === append.events[0]!.id)
    await follower.stop()
    expect(follower.events.map((event) => event.revision)).toEqual([0, 1])
  })

  test('says once that the log is lost and once that it is back', async () => {
    const lines: string[] = []
    const say = (_: object, line: string): number => lines.push(line)
    const proxy = await startLossyProxy(portOf(server.connectionString))
    const store = await open({
      connectionString: viaPort(server.connectionString, proxy.port),
      logger: { info: say, warn: say, error: say },
    })
    closers.push(() => proxy.close())
    const follower = new Follower((signal) => store.subscribeToAll(undefined, {}, signal))
    await follower.until(() => follower.saidCaughtUp)
    proxy.loseNextAnswers()
    await Promise.all(Array.from({ length: 10 }, () => store.append(appendOf(streamName(), NO_STREAM))))
    await follower.until(() => follower.events.length === 10)
    await expect.poll(() => lines, { timeout: 50_000 }).toEqual(['The log is lost; connecting again', 'The log is back'])
    await follower.stop()
  })

  test('works through discovery where a node is away', async () => {
    const port = portOf(server.connectionString)
    const store = await open({ connectionString: `esdb://127.0.0.1:1,127.0.0.1:${port}?tls=false&discoveryInterval=10` })
    expect((await store.append(appendOf(streamName(), NO_STREAM))).outcome).toBe('appended')
  })

  test('keeps the logs of one server apart, and passes over what others write', async () => {
    const [ours, theirs] = [await open(), await open({ streamPrefix: streamPrefix() })]
    const stream = streamName()
    const follower = new Follower((signal) => ours.subscribeToAll(undefined, {}, signal))
    await follower.until(() => follower.saidCaughtUp)
    for (const store of [theirs, ours, theirs]) await store.append(appendOf(store === ours ? stream : streamName(), NO_STREAM, 40))
    await follower.until(() => follower.events.length === 40)
    expect(await ours.head()).toBe(follower.events.at(-1)!.position)
    expect(new Set((await ours.readAll(undefined, { limit: 1000 })).events.map((event) => event.stream))).toEqual(new Set([stream]))
    await follower.stop()
  })

  test('refuses what the server would not take, and what would wait without bound', async () => {
    const store = await open({ queuedBytesMax: 5000 })
    const stream = streamName()
    const large = { stream, expectedRevision: NO_STREAM, events: [proposed(stream, 0, 'x'.repeat(1 << 20))] }
    await expect(store.append(large)).rejects.toThrow(RangeError)
    await store.close()
    const generous = await open({ appendBytesMax: 8 << 20 })
    await expect(generous.append(large)).rejects.toThrow(/MaximumAppendSizeExceeded/)
    expect((await generous.append(appendOf(stream, NO_STREAM))).outcome).toBe('appended')
    const narrow = await open({ queuedBytesMax: 5000 })
    const results = await Promise.allSettled(Array.from({ length: 100 }, () => narrow.append(appendOf(streamName(), NO_STREAM))))
    const refused = results.filter((result) => result.status === 'rejected')
    expect(refused.length).toBeGreaterThan(50)
    for (const { reason } of refused) expect(reason).toBeInstanceOf(StoreUnavailable)
  })

  test('settles what is pending before it closes, and takes nothing after', async () => {
    const store = await open()
    const pending = store.append(appendOf(streamName(), NO_STREAM))
    await store.close()
    expect((await pending).outcome).toBe('appended')
    await expect(store.append(appendOf(streamName(), NO_STREAM))).rejects.toThrow(StoreUnavailable)
    await expect(store.head()).rejects.toThrow(StoreUnavailable)
  })

  async function open(options: Partial<KurrentDbEventStoreOptions> = {}): Promise<KurrentDbEventStore> {
    const store = await KurrentDbEventStore.open({ connectionString: server.connectionString, streamPrefix: ownPrefix, ...options })
    closers.push(() => store.close())
    return store
  }
})

function portOf(connectionString: string): number {
  return Number(/:(\d+)(?=[?/]|$)/.exec(connectionString)![1])
}

function viaPort(connectionString: string, port: number): string {
  return connectionString.replace(/:\d+(?=[?/]|$)/, `:${port}`)
}
