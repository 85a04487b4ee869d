import { describe, expect, test } from 'vitest'
import { RecallsAhead } from '../../src/domain/recalls-ahead.js'
import type { Delivery } from '../../src/gateway/delivery.js'
import { HeldDeliveries } from '../../src/gateway/held-deliveries.js'
import { eventsFrame } from '../../src/gateway/frames.js'

const KEPT_BYTES = 512 * 1024

const event = (conversationId: string, seq: number, type: string, data: object) => JSON.stringify({ conversationId, seq, type, data })
const message = (conversationId: string, seq: number, words = 'hello') =>
  event(conversationId, seq, 'MessageSent', { content: { type: 'text', text: words } })

function delivery(conversationId: string, firstSeq: number, events: string[], more: Partial<Delivery> = {}): Delivery {
  const [lastSeq, resume] = [firstSeq + events.length - 1, `${firstSeq}`]
  return { frame: eventsFrame(events, resume), conversationId, firstSeq, lastSeq, events, resume, ...more }
}
const removal = (conversationId: string, seq: number, before: string[] = []) =>
  delivery(conversationId, seq - before.length, [...before, event(conversationId, seq, 'MemberRemoved', { userId: 'ben' })], {
    left: 'ben',
  })
const large = (conversationId: string, seq: number) => delivery(conversationId, seq, [message(conversationId, seq, 'x'.repeat(KEPT_BYTES))])

const shown = ({ events }: Delivery) => events.map((text) => JSON.parse(text) as { seq: number; data: { content?: unknown } })
const seqsOf = (deliveries: readonly Delivery[]) => deliveries.map((one) => [one.conversationId, ...shown(one).map(({ seq }) => seq)])

describe('what is held while a resume is sent', () => {
  test('keeps its order', () => {
    const held = new HeldDeliveries('ben', new RecallsAhead())
    for (const one of [delivery('g', 1, [message('g', 1)]), delivery('h', 5, [message('h', 5)]), delivery('g', 2, [message('g', 2)])])
      held.hold(one)
    expect(seqsOf(held.kept())).toEqual([
      ['g', 1],
      ['h', 5],
      ['g', 2],
    ])
    expect(held.late()).toEqual({ departures: [], heads: new Map() })
  })

  test('is a head for each conversation once there is too much', () => {
    const held = new HeldDeliveries('ben', new RecallsAhead())
    for (const one of [delivery('g', 1, [message('g', 1)]), large('h', 5), delivery('g', 2, [message('g', 2)])]) held.hold(one)
    expect(seqsOf(held.kept())).toEqual([['g', 1]])
    expect([...held.late().heads]).toEqual([
      ['h', { seq: 5, resume: '5' }],
      ['g', { seq: 2, resume: '2' }],
    ])
  })

  test.each(['kept', 'late'])('has of a conversation from which its user was removed that event alone, %s', (when) => {
    const held = new HeldDeliveries('ben', new RecallsAhead())
    held.hold(delivery('g', 1, [message('g', 1, 'not for a former member')]))
    held.hold(delivery('h', 5, [message('h', 5)]))
    if (when === 'late') held.hold(large('g', 2))
    held.hold(removal('g', 4, [message('g', 3)]))
    const { departures, heads } = held.late()
    expect(seqsOf([...held.kept(), ...departures])).toEqual([
      ['h', 5],
      ['g', 4],
    ])
    expect(heads.has('g')).toBe(false)
  })

  test('has the departure before the head of what came when its user was back', () => {
    const held = new HeldDeliveries('ben', new RecallsAhead())
    for (const one of [large('g', 2), removal('g', 3), delivery('g', 4, [message('g', 4)])]) held.hold(one)
    const { departures, heads } = held.late()
    expect(seqsOf(departures)).toEqual([['g', 3]])
    expect(heads.get('g')).toEqual({ seq: 4, resume: '4' })
  })

  test('has lost what was recalled meanwhile, also where the recall did not fit', () => {
    const held = new HeldDeliveries('ben', new RecallsAhead())
    held.hold(
      delivery('g', 1, [
        message('g', 1, 'secret'),
        event('g', 2, 'MessageEdited', { messageSeq: 1, content: { type: 'text', text: 'secret' } }),
      ]),
    )
    held.hold(delivery('h', 1, [message('h', 1, 'fine')]))
    held.hold(large('g', 3))
    held.hold(delivery('g', 4, [event('g', 4, 'MessageRecalled', { messageSeq: 1 })], { recalls: new Set([1]) }))
    const [g, h] = held.kept()
    expect(shown(g!).map(({ data }) => data.content)).toEqual([null, null])
    expect(g!.frame.toString()).not.toContain('secret')
    expect(shown(h!)[0]!.data.content).toMatchObject({ text: 'fine' })
  })

  test('has lost what this node has acknowledged as recalled, though the feed has not brought it', () => {
    const recallsAhead = new RecallsAhead()
    const held = new HeldDeliveries('ben', recallsAhead)
    held.hold(delivery('g', 1, [message('g', 1, 'secret'), message('g', 2, 'fine')]))
    recallsAhead.add('g', 1, '3')
    const [g] = held.kept()
    expect(shown(g!).map(({ data }) => data.content)).toEqual([null, { type: 'text', text: 'fine' }])
    expect(g!.frame.toString()).not.toContain('secret')
  })
})
