import { describe, expect, test } from 'vitest'
import { UNACKED_CHARACTERS_MAX, UnackedEvents } from '../../src/gateway/unacked-events.js'
import { useServer } from '../support/app-server.js'
import type { Device } from '../support/device.js'
import { text } from '../support/world.js'

const REPUSH_AFTER_MS = 300
const world = useServer({ times: { repushAfterMs: REPUSH_AFTER_MS } })

const again = (device: Device) =>
  device
    .ofType('events')
    .filter((frame) => frame.again)
    .flatMap((frame) => frame.events!)

describe('a device that acknowledges', () => {
  test('gets what it did not acknowledge three times more, the same, and never what it did', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const device = await b.connect({ acks: true })
    await a.sendMany(conversation, 3)
    await device.waitForSeq(conversationId, 3)
    device.send({ type: 'ack', conversationId, seq: 2 })
    const begun = performance.now()
    await device.until(() => again(device).length === 3, 'three times more')
    expect(performance.now() - begun).toBeGreaterThan(REPUSH_AFTER_MS * 2)
    // There would be a fourth time by then.
    const late = await b.connect({ acks: true })
    await a.send(conversation)
    await late.until(() => again(late).length >= 2, 'two of another device')
    expect(again(device).filter(({ seq }) => seq <= 3)).toEqual(Array.from({ length: 3 }, () => device.events(conversationId)[2]))
  })

  test('gets nothing again once it has acknowledged all', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const [device, forgetful] = [await b.connect({ acks: true }), await b.connect({ acks: true })]
    const sent = await a.sendMany(conversation, 5)
    await device.waitForSeq(conversationId, sent.seq)
    device.send({ type: 'ack', conversationId, seq: sent.seq })
    await forgetful.until(() => again(forgetful).length >= 10, 'the other device to get all twice more')
    expect(again(device)).toEqual([])
  })

  test('an ack is per conversation', async () => {
    const [a, b] = world().users('a', 'b')
    const [one, other] = [await a.group([b]), await a.group([b])]
    const device = await b.connect({ acks: true })
    await a.send(one)
    await a.send(other)
    await device.waitForSeq(one.conversationId, 1)
    device.send({ type: 'ack', conversationId: one.conversationId, seq: 1 })
    await device.until(() => again(device).length >= 2, 'twice more')
    expect(new Set(again(device).map(({ conversationId }) => conversationId))).toEqual(new Set([other.conversationId]))
  })

  test('what is sent again may be resumed from like everything else', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const device = await b.connect({ acks: true })
    await a.send(conversation)
    await device.until(() => again(device).length === 1, 'once more')
    const { position } = device
    const sent = await a.send(conversation)
    const next = await b.connect({ position })
    await next.waitForSeq(conversation.conversationId, sent.seq)
    expect(next.seqs(conversation.conversationId)).toEqual([2])
  })

  test('what was recalled since is sent again without its content', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const device = await b.connect({ acks: true })
    const sent = await a.send(conversation, 'SECRET')
    await a.write('PATCH', `/v1/conversations/${conversationId}/messages/${sent.seq}`, { content: text('SECRET too') })
    await device.waitForSeq(conversationId, 2)
    await a.recall(conversation, sent.seq)
    await device.waitForSeq(conversationId, 3)
    const before = device.frames.length
    await device.until(() => again(device).filter(({ type }) => type === 'MessageRecalled').length === 2, 'the recall twice more')
    const since = device.frames.slice(before)
    expect(JSON.stringify(since)).not.toContain('SECRET')
    expect(since.flatMap(({ events = [] }) => events).filter(({ seq }) => seq === 1)[0]!.data).toMatchObject({
      clientMessageId: expect.any(String),
      ordinal: 1,
      content: null,
    })
  })

  test('who was removed gets again no more than that', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const device = await b.connect({ acks: true })
    await a.sendMany(conversation, 3)
    const removed = await a.remove(conversation, b)
    await device.waitForSeq(conversationId, removed.seq)
    const before = device.frames.length
    await device.until(() => again(device).filter(({ seq }) => seq === removed.seq).length >= 2, 'the removal twice more')
    const since = device.frames.slice(before).flatMap(({ events = [] }) => events)
    expect(new Set(since.map(({ type }) => type))).toEqual(new Set(['MemberRemoved']))
    device.send({ type: 'ack', conversationId, seq: removed.seq })
    await device.settled()
    expect(device.ofType('error')).toEqual([])
  })
})

test('a device that never said that it acknowledges gets nothing again', async () => {
  const [a, b] = world().users('a', 'b')
  const conversation = await a.group([b])
  const [device, other] = [await b.connect(), await b.connect({ acks: true })]
  await a.send(conversation)
  await other.until(() => again(other).length === 2, 'the other device to get it twice more')
  expect(again(device)).toEqual([])
})

describe('what is not acknowledged', () => {
  const track = (unacked: UnackedEvents, firstSeq: number, events: string[], conversationId = 'c') =>
    unacked.track({ conversationId, firstSeq, lastSeq: firstSeq + events.length - 1, events, frame: Buffer.alloc(0), resume: '' })

  test('is due after 5 s, three times, each 5 s after the one before', () => {
    let now = 0
    const unacked = new UnackedEvents(5_000, () => now)
    track(unacked, 1, ['one'])
    const dueAt: number[] = []
    for (; now < 60_000; now += 500) if (unacked.takeDue().events.size > 0) dueAt.push(now)
    expect(dueAt).toEqual([5_000, 10_000, 15_000])
  })

  test('is kept for the last 1,000; what falls out is announced by head, once, unless it was acknowledged', () => {
    const now = 0
    const unacked = new UnackedEvents(5_000, () => now)
    track(
      unacked,
      1,
      Array.from({ length: 1_500 }, (_, n) => `${n + 1}`),
    )
    track(unacked, 1, ['x'], 'other')
    expect([...unacked.takeDue().heads.keys()]).toEqual(['c'])
    expect(unacked.takeDue().heads.size).toBe(0)
    track(
      unacked,
      1_501,
      Array.from({ length: 1_500 }, (_, n) => `${n}`),
    )
    unacked.acknowledge('c', 3_000)
    expect([...unacked.takeDue().heads.keys()]).toEqual(['other'])
  })

  test('of large ones so many are kept as the bound in characters allows; the others are announced by head', () => {
    const unacked = new UnackedEvents(0)
    const large = 'x'.repeat(30_000)
    track(
      unacked,
      1,
      Array.from({ length: 200 }, () => large),
    )
    expect([...unacked.takeDue().heads]).toEqual([['c', 200 - Math.floor(UNACKED_CHARACTERS_MAX / large.length)]])
  })

  test('of large ones no more is due at once than a socket takes; the rest follows', () => {
    let now = 0
    const unacked = new UnackedEvents(5_000, () => now)
    track(
      unacked,
      1,
      Array.from({ length: 30 }, () => 'x'.repeat(30_000)),
    )
    const counts: number[] = []
    for (now = 5_000; now < 9_900; now += 500) counts.push(unacked.takeDue().events.get('c')?.length ?? 0)
    expect(Math.max(...counts) * 30_000).toBeLessThan(300_000)
    expect(counts.reduce((sum, count) => sum + count)).toBe(30)
  })
})
