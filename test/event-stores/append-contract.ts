import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { type AppendResult, NO_STREAM, ProposedEvent, type RecordedEvent } from '../../src/domain/event-store.js'
import type { Suite } from './contract.js'
import { appendOf, keys, proposed, seen, streamName } from './events.js'

export function appendContract(it: Suite): void {
  test('gives back what was stored, and a reader gets the same', async () => {
    const stream = streamName()
    const appended = eventsOf(await it.store.append(appendOf(stream, NO_STREAM, 3)))
    expect(appended.map((event) => event.revision)).toEqual([0, 1, 2])
    expect((await it.store.readStream(stream, { limit: 10 })).events.map(seen)).toEqual(appended.map(seen))
    expect(await it.store.head()).toBe(appended.at(-1)!.position)
  })

  test('stores data byte for byte: order of keys, unicode, quotes, escapes', async () => {
    const stream = streamName()
    const text = 'ключ "quoted" \\ {a,b} NULL \u0000 \u2028 😀 e\u0301 \ud800'
    const dataJson = `{"z":1,"a" : ${JSON.stringify(text)},"a":1.0}`
    const event = new ProposedEvent({ ...proposed(stream, 0), dataJson, data: JSON.parse(dataJson) as unknown })
    await it.store.append({ stream, expectedRevision: NO_STREAM, events: [event] })
    const [read] = (await it.store.readStream(stream, { limit: 1 })).events
    expect(read!.dataJson).toBe(dataJson)
    expect(read!.metadata).toEqual(event.metadata)
  })

  test('takes an event of nearly a megabyte, and a thousand events at once', async () => {
    const [large, many] = [streamName(), streamName()]
    const event = proposed(large, 0, { text: 'ü'.repeat(450_000) })
    await it.store.append({ stream: large, expectedRevision: NO_STREAM, events: [event] })
    expect((await it.store.readStream(large, { limit: 1 })).events[0]!.dataJson).toBe(event.dataJson)
    const appended = eventsOf(await it.store.append(appendOf(many, NO_STREAM, 1500)))
    expect(keys((await it.store.readStream(many, { limit: 2000 })).events)).toEqual(keys(appended))
  })

  test('at another revision than expected is a conflict that names the actual one', async () => {
    const stream = streamName()
    expect(await it.store.append(appendOf(stream, 0))).toEqual({ outcome: 'conflict', actualRevision: NO_STREAM })
    await it.store.append(appendOf(stream, NO_STREAM, 2))
    for (const expectedRevision of [NO_STREAM, 0, 2, 7]) {
      expect(await it.store.append(appendOf(stream, expectedRevision, 2))).toEqual({ outcome: 'conflict', actualRevision: 1 })
    }
    expect((await it.store.readStream(stream, { limit: 10 })).events).toHaveLength(2)
  })

  test('again is a duplicate, with the first result, however much came after it', async () => {
    const stream = streamName()
    const append = appendOf(stream, NO_STREAM, 3)
    const first = eventsOf(await it.store.append(append))
    expect(keys(duplicateOf(await it.store.append(append)))).toEqual(keys(first))
    await it.store.append(appendOf(stream, 2, 5))
    expect(keys(duplicateOf(await it.store.append(append)))).toEqual(keys(first))
    expect((await it.store.readStream(stream, { limit: 20 })).events).toHaveLength(8)
  })

  test('with the ids of an earlier one at another place, or with only some of them, is a conflict', async () => {
    const stream = streamName()
    const append = appendOf(stream, NO_STREAM)
    const [event] = append.events
    await it.store.append(append)
    await it.store.append(appendOf(stream, 0))
    const partly = { ...append, events: [event!, proposed(stream, 1)] }
    expect(await it.store.append(partly)).toEqual({ outcome: 'conflict', actualRevision: 1 })
    const beyond = { ...append, events: [...append.events, ...[1, 2, 3].map((revision) => proposed(stream, revision))] }
    expect(await it.store.append(beyond)).toEqual({ outcome: 'conflict', actualRevision: 1 })
    await it.store.append(appendOf(stream, 1))
    const elsewhere = { stream, expectedRevision: 0, events: [new ProposedEvent({ ...event!, revision: 1 })] }
    expect(await it.store.append(elsewhere)).toEqual({ outcome: 'conflict', actualRevision: 2 })
  })

  test('of many streams in one instant: each has its own outcome', async () => {
    const streams = Array.from({ length: 50 }, () => streamName())
    const first = streams.map((stream) => appendOf(stream, NO_STREAM, 2))
    await Promise.all(first.map((append) => it.store.append(append)))
    const second = streams.map((stream, i) => (i % 3 === 0 ? appendOf(stream, 0) : i % 3 === 1 ? first[i]! : appendOf(stream, 1, 3)))
    const results = await Promise.all(second.map((append) => it.store.append(append)))
    expect(results.map((result) => result.outcome)).toEqual(streams.map((_, i) => ['conflict', 'duplicate', 'appended'][i % 3]))
    for (const [i, stream] of streams.entries())
      expect((await it.store.readStream(stream, { limit: 10 })).events).toHaveLength(i % 3 === 2 ? 5 : 2)
    const positions = results.flatMap((result) => (result.outcome === 'appended' ? eventsOf(result) : [])).map((event) => event.position)
    expect(new Set(positions).size).toBe(positions.length)
  })

  test('twice at the same expected revision in one instant: one is stored', async () => {
    const stream = streamName()
    const results = await Promise.all([it.store.append(appendOf(stream, NO_STREAM)), it.store.append(appendOf(stream, NO_STREAM))])
    expect(results.map((result) => result.outcome)).toEqual(['appended', 'conflict'])
  })

  test('one behind the other on one stream, without waiting, keeps their order', async () => {
    const stream = streamName()
    const appends = Array.from({ length: 20 }, (_, i) => appendOf(stream, i - 1))
    const results = await Promise.all(appends.map((append) => it.store.append(append)))
    expect(results.flatMap(eventsOf).map((event) => event.id)).toEqual(appends.flatMap((append) => append.events.map((event) => event.id)))
  })

  test('that the store cannot hold fails alone, in whatever company', async () => {
    const [bad, ...good] = Array.from({ length: 8 }, () => streamName())
    const poisoned = { stream: bad!, expectedRevision: NO_STREAM, events: [new ProposedEvent({ ...proposed(bad!, 0), type: 'a\u0000b' })] }
    const [refused, ...accepted] = await Promise.allSettled(
      [poisoned, ...good.map((stream) => appendOf(stream, NO_STREAM))].map((append) => it.store.append(append)),
    )
    expect(refused!.status).toBe('rejected')
    expect(accepted.map((result) => result.status === 'fulfilled' && result.value.outcome)).toEqual(good.map(() => 'appended'))
  })

  test('that makes no sense is refused before anything happens', async () => {
    const stream = streamName()
    await expect(it.store.append({ stream, expectedRevision: NO_STREAM, events: [] })).rejects.toThrow(TypeError)
    await expect(it.store.append({ stream, expectedRevision: NO_STREAM, events: [proposed(stream, 1)] })).rejects.toThrow(TypeError)
    await expect(it.store.append({ stream, expectedRevision: NO_STREAM, events: [proposed(streamName(), 0)] })).rejects.toThrow(TypeError)
    const misnamed = new ProposedEvent({ ...proposed(stream, 0), id: `${randomUUID()}!` })
    await expect(it.store.append({ stream, expectedRevision: NO_STREAM, events: [misnamed] })).rejects.toThrow(TypeError)
  })
}

function eventsOf(result: AppendResult): RecordedEvent[] {
  if (result.outcome !== 'appended') throw new Error(`Not appended: ${result.outcome}`)
  return result.events
}

function duplicateOf(result: AppendResult): RecordedEvent[] {
  if (result.outcome !== 'duplicate') throw new Error(`Not a duplicate: ${result.outcome}`)
  return result.events
}
