import { beforeAll, expect, test } from 'vitest'
import type { RecordedEvent } from '../../src/domain/event-store.js'
import type { Suite } from './contract.js'
import { keys, seed, seen, streamName } from './events.js'

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

  beforeAll(async () => {
    expect(await it.store.readAll(undefined, { limit: 10 })).toEqual({ events: [], position: await it.store.head() })
    expect((await it.store.readAll(undefined, { prefixes: ['user-'], limit: 10 })).events).toEqual([])
    log = await seed(it.store, streams, perStream)
  })

  const revisions = async (options: Parameters<typeof it.store.readStream>[1]): Promise<number[]> =>
    (await it.store.readStream(streams[0]!, options)).map((event) => event.revision)

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
    expect(await it.store.readStream(streamName(), { limit: 10 })).toEqual([])
    expect(new Set((await it.store.readStream('conversation-1', { limit: 100 })).map((event) => event.stream))).toEqual(
      new Set(['conversation-1']),
    )
  })

  test('the whole log in pages, in its order', async () => {
    for (const limit of [1, 7, 1000]) expect(keys(await readAllPages(limit))).toEqual(keys(log))
    expect((await readAllPages(10)).map(seen)).toEqual(log.map(seen))
  })

  test('the log through a filter, where % and _ are letters like others', async () => {
    for (const prefixes of [['receipts-', 'user-'], ['conversation-1'], ['conversation_'], ['%'], ['nothing-']]) {
      const expected = log.filter(({ stream }) => prefixes.some((prefix) => stream.startsWith(prefix)))
      for (const limit of [5, 1000]) expect(keys(await readAllPages(limit, prefixes))).toEqual(keys(expected))
    }
  })

  test('positions are ordered tokens, and others are recognised', async () => {
    const positions = log.map((event) => event.position)
    expect([...positions].sort()).toEqual(positions)
    for (const position of [...positions, await it.store.head()]) expect(it.store.isPosition(position)).toBe(true)
    for (const text of ['', 'x', '-1', "0' OR 1=1", '9'.repeat(99)]) expect(it.store.isPosition(text)).toBe(false)
  })

  async function readAllPages(limit: number, prefixes: string[] = []): Promise<RecordedEvent[]> {
    const events: RecordedEvent[] = []
    for (let position: string | undefined; ; ) {
      const page = await it.store.readAll(position, { limit, prefixes })
      expect(page.events.length).toBeLessThanOrEqual(limit)
      if (page.events.length === 0 && page.position === position) return events
      events.push(...page.events)
      position = page.position
    }
  }
}
