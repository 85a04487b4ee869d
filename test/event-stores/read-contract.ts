import { beforeAll, expect, test } from 'vitest'
import { NO_STREAM, type ReadStreamOptions, type RecordedEvent } from '../../src/domain/event-store.js'
import type { Suite } from './contract.js'
import { keys, proposed, seed, seen, streamName, wholeLog } from './events.js'

export function readContract(it: Suite): void {
  const streams = [
    streamName('conversation'),
    streamName('receipts'),
    streamName('user'),
    'conversation-1',
    'conversation-10',
    'conversation_%',
  ]
  const perStream = 12
  let log: RecordedEvent[]
  /** The position before the first event. */
  let begin: string

  beforeAll(async () => {
    begin = await it.store.head()
    expect(await it.store.readAll(undefined, { limit: 10 })).toEqual({ events: [], position: begin, isEnd: true })
    expect((await it.store.readAll(undefined, { prefixes: ['user-'], limit: 10 })).events).toEqual([])
    log = await seed(it.store, streams, perStream)
  })

  const revisions = async (options: Parameters<typeof it.store.readStream>[1]): Promise<number[]> =>
    (await it.store.readStream(streams[0]!, options)).events.map((event) => event.revision)

  test('a stream forwards and backwards, from anywhere, to a limit', async () => {
    expect(await revisions({ limit: 3 })).toEqual([0, 1, 2])
    expect(await revisions({ from: 10, limit: 5 })).toEqual([10, 11])
    expect(await revisions({ from: 12, limit: 5 })).toEqual([])
    expect(await revisions({ direction: 'backwards', limit: 3 })).toEqual([11, 10, 9])
    expect(await revisions({ direction: 'backwards', from: 1, limit: 5 })).toEqual([1, 0])
    expect(await revisions({ direction: 'backwards', from: 99, limit: 1 })).toEqual([11])
    expect(await revisions({ direction: 'backwards', from: -1, limit: 1 })).toEqual([])
  })

  test('a stream that is not there, and one whose name begins like another', async () => {
    expect(await it.store.readStream(streamName(), { limit: 10 })).toEqual({ events: [], isEnd: true })
    expect(new Set((await it.store.readStream('conversation-1', { limit: 100 })).events.map((event) => event.stream))).toEqual(
      new Set(['conversation-1']),
    )
  })

  test('a page of a stream tells whether the stream goes on in its direction', async () => {
    const isEnd = async (options: ReadStreamOptions): Promise<boolean> => (await it.store.readStream(streams[0]!, options)).isEnd
    expect(await isEnd({ limit: perStream - 1 })).toBe(false)
    expect(await isEnd({ limit: perStream })).toBe(true)
    expect(await isEnd({ from: perStream, limit: 5 })).toBe(true)
    expect(await isEnd({ direction: 'backwards', from: 4, limit: 4 })).toBe(false)
    expect(await isEnd({ direction: 'backwards', from: 4, limit: 5 })).toBe(true)
    expect(await isEnd({ direction: 'backwards', from: -1, limit: 5 })).toBe(true)
  })

  test('a page of a stream is cut by bytes, and has at least one event', async () => {
    const stream = streamName()
    const text = '\u00e9'.repeat(5_000)
    const events = Array.from({ length: 6 }, (_, revision) => proposed(stream, revision, { text: revision === 3 ? 'small' : text }))
    await it.store.append({ stream, expectedRevision: NO_STREAM, events })
    const read = async (options: Omit<ReadStreamOptions, 'limit'>): Promise<{ revisions: number[]; isEnd: boolean }> => {
      const page = await it.store.readStream(stream, { limit: 100, ...options })
      return { revisions: page.events.map(({ revision }) => revision), isEnd: page.isEnd }
    }
    // Each has 10,000 bytes of text, which are 5,000 characters.
    expect(await read({ bytesMax: 25_000 })).toEqual({ revisions: [0, 1], isEnd: false })
    expect(await read({ bytesMax: 25_000, from: 2 })).toEqual({ revisions: [2, 3, 4], isEnd: false })
    expect(await read({ bytesMax: 25_000, from: 3 })).toEqual({ revisions: [3, 4, 5], isEnd: true })
    expect(await read({ bytesMax: 25_000, from: 4 })).toEqual({ revisions: [4, 5], isEnd: true })
    expect(await read({ bytesMax: 25_000, direction: 'backwards' })).toEqual({ revisions: [5, 4, 3], isEnd: false })
    expect(await read({ bytesMax: 25_000, direction: 'backwards', from: 1 })).toEqual({ revisions: [1, 0], isEnd: true })
    expect(await read({ bytesMax: 1 })).toEqual({ revisions: [0], isEnd: false })
    expect(await read({ bytesMax: 1, from: 5 })).toEqual({ revisions: [5], isEnd: true })
    expect(await read({})).toEqual({ revisions: [0, 1, 2, 3, 4, 5], isEnd: true })
  })

  test('the log in pages cut by bytes, in its order, with a filter and without', async () => {
    const everything = await wholeLog(it.store)
    for (const prefixes of [[], ['conversation-', 'user-']]) {
      const expected = everything.filter(({ stream }) => prefixes.length === 0 || prefixes.some((prefix) => stream.startsWith(prefix)))
      for (const bytesMax of [1, 4_000, 30_000]) expect(keys(await wholeLog(it.store, { prefixes, bytesMax }))).toEqual(keys(expected))
      const { events, isEnd } = await it.store.readAll(undefined, { prefixes, limit: 1_000, bytesMax: 4_000 })
      expect(isEnd).toBe(false)
      expect(events.length).toBeLessThan(expected.length)
    }
  })

  test('the whole log in pages, in its order', async () => {
    log = await wholeLog(it.store)
    for (const limit of [1, 7, 1000]) expect(keys(await readAllPages(limit))).toEqual(keys(log))
    expect((await readAllPages(10)).map(seen)).toEqual(log.map(seen))
  })

  test('the log through a filter, where % and _ are letters like others', async () => {
    log = await wholeLog(it.store)
    for (const prefixes of [['receipts-', 'user-'], ['conversation-1'], ['conversation_'], ['%'], ['nothing-']]) {
      const expected = log.filter(({ stream }) => prefixes.some((prefix) => stream.startsWith(prefix)))
      for (const limit of [5, 1000]) expect(keys(await readAllPages(limit, prefixes))).toEqual(keys(expected))
    }
  })

  test('positions are ordered tokens, those of pages and feeds as those of events', async () => {
    const positions = log.map((event) => event.position)
    expect([...positions].sort()).toEqual(positions)
    expect(await it.store.head()).toBe(positions.at(-1))
    const byFilter = await it.store.readAll(undefined, { prefixes: ['nothing-'], limit: 5 })
    expect(byFilter).toEqual({ events: [], position: positions.at(-1), isEnd: true })
    const page = await it.store.readAll(undefined, { prefixes: ['receipts-'], limit: 5 })
    expect(page.position).toBe(page.events.at(-1)?.position)
  })

  test('the log confirms its own positions, also to a process that has just come, and no others', async () => {
    const empty = await it.emptyLog()
    expect(await empty.head()).toBe(begin)
    for (const store of [it.store, await it.another()]) {
      for (const position of [begin, ...log.map((event) => event.position), await store.head()])
        expect([position, await store.confirms(position)]).toEqual([position, true])
      const [first, second] = log.map((event) => event.position) as [string, string]
      const last = log.at(-1)!.position
      const placeOf = (position: string) => position.slice(0, begin.length)
      const ofOthers = [
        // The same place with another event, or none; the same event at another place.
        placeOf(first) + second.slice(begin.length),
        placeOf(first),
        placeOf(second) + first.slice(begin.length),
        `${begin}${first.slice(begin.length)}`,
        // Ahead of the end.
        last.replace(/^./, '1'),
        placeOf(last).replace(/^./, '1'),
        '',
        'x',
        '-1',
        "0' OR 1=1",
        '9'.repeat(99),
        `${last} `,
        `${last}x`,
        last.slice(1),
        last.replace('.', '!'),
      ]
      for (const text of ofOthers) expect([text, await store.confirms(text)]).toEqual([text, false])
    }
    for (const { position } of log.slice(0, 3)) expect(await empty.confirms(position)).toBe(false)
    expect(await empty.confirms(begin)).toBe(true)
  })

  async function readAllPages(limit: number, prefixes: string[] = []): Promise<RecordedEvent[]> {
    const events: RecordedEvent[] = []
    for (let position: string | undefined; ; ) {
      const page = await it.store.readAll(position, { limit, prefixes })
      expect(page.events.length).toBeLessThanOrEqual(limit)
      events.push(...page.events)
      position = page.position
      if (page.isEnd) return events
    }
  }
}
