import { describe, expect, test } from 'vitest'
import { RecordedEvent } from '../../src/domain/event-store.js'
import { type Upcasters, factOf } from '../../src/domain/events.js'

/** As if MessagePinned had once said `{seq}`, then `{messageSeq}`, and now who may see it too. */
const upcasters: Upcasters = {
  MessagePinned: [(data) => ({ messageSeq: (data as { seq: number }).seq }), (data) => ({ ...(data as object), visibleTo: 'all' })],
}

function recorded(type: string, schemaVersion: number, data: object): RecordedEvent {
  const metadata = { actor: { userId: 'anna' }, at: 1, correlationId: 'r', causationId: null, schemaVersion, hash: 'h' }
  const stored = { id: 'i', type, stream: 'conversation-c', revision: 3, dataJson: JSON.stringify(data) }
  return new RecordedEvent(stored, '7', JSON.stringify(metadata))
}

describe('an event of', () => {
  test.each([
    [1, { seq: 5 }, { messageSeq: 5, visibleTo: 'all' }],
    [2, { messageSeq: 5 }, { messageSeq: 5, visibleTo: 'all' }],
    [3, { messageSeq: 5, visibleTo: 'owner' }, { messageSeq: 5, visibleTo: 'owner' }],
  ])('version %i is lifted to what today’s code knows', (version, data, expected) => {
    const event = recorded('MessagePinned', version, data)
    const fact = factOf(event, upcasters)
    expect(fact.data).toEqual(expected)
    expect(JSON.parse(fact.dataJson)).toEqual(expected)
    const { id, type, stream, revision, position, metadata } = event
    expect(fact).toMatchObject({ id, type, stream, revision, position, metadata })
  })

  test('a version that is current is handed on as it is, unparsed', () => {
    const event = recorded('MessagePinned', 3, { messageSeq: 5 })
    expect(factOf(event, upcasters)).toBe(event)
  })

  test('another type is handed on as it is', () => {
    const event = recorded('MessageUnpinned', 1, { messageSeq: 5 })
    expect(factOf(event, upcasters)).toBe(event)
    expect(factOf(event)).toBe(event)
  })

  test('the log is not changed by lifting it: its hash stays good', () => {
    const event = recorded('MessagePinned', 1, { seq: 5 })
    factOf(event, upcasters)
    expect(event.dataJson).toBe('{"seq":5}')
    expect(event.data).toEqual({ seq: 5 })
  })
})
