import { describe, expect, test } from 'vitest'
import { useServer } from '../support/app-server.js'
import type { Device } from '../support/device.js'
import { placesAhead } from '../support/resume-places.js'
import { type Conversation, type User, text, unique } from '../support/world.js'

/** A conversation of four is a large one here: those of five stay large when one leaves. */
const world = useServer({ env: { FANOUT_ON_WRITE_MAX: '3' } })

const range = (from: number, to: number) => Array.from({ length: Math.max(0, to - from + 1) }, (_, n) => from + n)
const of = <T extends { conversationId?: string }>(frames: T[], { conversationId }: Conversation) =>
  frames.filter((frame) => frame.conversationId === conversationId)

async function largeGroup(): Promise<{ owner: User; members: User[]; conversation: Conversation }> {
  const [owner, ...members] = world().users('o', 'm', 'm', 'm', 'm')
  return { owner, members, conversation: await owner.group(members) }
}

async function look(device: Device, conversationId: string | null): Promise<void> {
  device.send({ type: 'active', conversationId })
  await device.settled()
}

describe('in a large conversation', () => {
  test('a device that does not look gets head instead of events, and can pull what it says', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    const device = await members[0]!.connect()
    const sent = await owner.sendMany(conversation, 5)
    await device.waitForSeq(conversationId, sent.seq)
    expect(device.events(conversationId)).toEqual([])
    const heads = of(device.ofType('head'), conversation)
    expect(heads.at(-1)).toEqual({ type: 'head', conversationId, seq: sent.seq, resume: expect.stringMatching(/./) })
    const { events, head } = await device.ask('events.get', { conversationId, after: conversation.head })
    expect([events!.map(({ seq }) => seq), head]).toEqual([range(1, 5), 5])
  })

  test('head comes at most once in 100 ms, and the last one is the end', async () => {
    const { owner, members, conversation } = await largeGroup()
    const [device, sending] = [await members[0]!.connect(), await owner.connect()]
    const begun = performance.now()
    for (let n = 0; n < 200; n += 1)
      await sending.ask('message.send', { conversationId: conversation.conversationId, clientMessageId: `m${n}`, content: text('x') })
    const tookMs = performance.now() - begun
    await device.waitForSeq(conversation.conversationId, 200)
    const seqs = of(device.ofType('head'), conversation).map(({ seq }) => seq!)
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b))
    expect(seqs.length).toBeLessThanOrEqual(tookMs / 100 + 2)
    expect(device.events()).toEqual([])
  })

  test('a device that looks gets all events, merged; one that looks away gets head again', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    const [device, sending] = [await members[0]!.connect(), await owner.connect()]
    await look(device, conversationId)
    const begun = performance.now()
    for (let n = 1; n <= 100; n += 1) await sending.ask('message.send', { conversationId, clientMessageId: `m${n}`, content: text('x') })
    const tookMs = performance.now() - begun
    await device.waitForSeq(conversationId, 100)
    expect(device.seqs(conversationId)).toEqual(range(1, 100))
    expect(device.ofType('events').length).toBeLessThanOrEqual(tookMs / 100 + 2)
    await look(device, null)
    const sent = await owner.send(conversation)
    await device.waitForSeq(conversationId, sent.seq)
    expect(device.seqs(conversationId)).toEqual(range(1, 100))
  })

  test('the first event after a pause goes out at once', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    const [device, sending] = [await members[0]!.connect(), await owner.connect()]
    await look(device, conversationId)
    await sending.ask('message.send', { conversationId, clientMessageId: 'm', content: text('x') })
    // It may still be on its way when the answer is here, but not for 100 ms: no later answer overtakes it.
    await device.waitForSeq(conversationId, 1)
    const begun = performance.now()
    await Promise.all(range(1, 5).map((n) => sending.ask('message.send', { conversationId, clientMessageId: `n${n}`, content: text('x') })))
    const tookMs = performance.now() - begun
    await device.waitForSeq(conversationId, 6)
    expect(device.ofType('events')[0]!.events).toHaveLength(1)
    expect(device.ofType('events').length).toBeLessThanOrEqual(tookMs / 100 + 3)
  })

  test('becoming active is answered by head at once, where the events go on', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    await owner.sendMany(conversation, 3)
    const device = await members[0]!.connect()
    await look(device, conversationId)
    expect(of(device.ofType('head'), conversation)).toEqual([{ type: 'head', conversationId, seq: 3, resume: expect.stringMatching(/./) }])
    const sent = await owner.send(conversation)
    await device.waitForSeq(conversationId, sent.seq)
    expect(device.seqs(conversationId)).toEqual([4])
  })

  test('becoming active in the middle of traffic leaves no hole', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    const device = await members[0]!.connect()
    const traffic = Promise.all(range(1, 200).map(() => owner.send(conversation)))
    for (let n = 0; n < 20; n += 1) await look(device, n % 2 === 0 ? conversationId : null)
    await look(device, conversationId)
    const sent = await traffic
    await device.waitForSeq(conversationId, sent.length)
    // What is between the frames is announced: the device's own judgement of that is looked at after the test.
    expect(device.lastSeq(conversationId)).toBe(200)
  })

  test('who joins gets its own MemberJoined, and then head', async () => {
    const { owner, conversation } = await largeGroup()
    const { conversationId } = conversation
    const joining = world().user('j')
    const device = await joining.connect()
    for (let n = 0; n < 10; n += 1) {
      await owner.sendMany(conversation, 2)
      const joined = await owner.add(conversation, joining)
      const after = await owner.send(conversation)
      await device.waitForSeq(conversationId, after.seq)
      expect(device.events(conversationId).map(({ seq, type, data }) => [seq, type, data.userId])).toEqual([
        [joined.seq, 'MemberJoined', joining.id],
      ])
      const left = await owner.remove(conversation, joining)
      await device.waitForSeq(conversationId, left.seq)
      device.frames.length = 0
    }
  })

  test('who is removed gets that event last', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    const [device, other] = [await members[0]!.connect(), await members[1]!.connect()]
    await Promise.all(range(1, 20).map(() => owner.send(conversation)))
    const removed = await owner.remove(conversation, members[0]!)
    const after = await owner.send(conversation)
    await other.waitForSeq(conversationId, after.seq)
    await device.settled()
    expect(device.events(conversationId).map(({ seq, type }) => [seq, type])).toEqual([[removed.seq, 'MemberRemoved']])
    expect(Math.max(...of(device.ofType('head'), conversation).map(({ seq }) => seq!))).toBeLessThan(removed.seq)
  })

  test('receipts are not pushed; they are there to be read', async () => {
    const { owner, members, conversation } = await largeGroup()
    const sent = await owner.send(conversation)
    const [device, theirs] = [await members[0]!.connect(), await owner.connect()]
    const { position } = await device.ask('read', { conversationId: conversation.conversationId, seq: sent.seq })
    const { items } = await owner.get<{ items: { userId: string; readSeq: number }[] }>(
      `/v1/conversations/${conversation.conversationId}/receipts?minPosition=${position}`,
    )
    expect(items.find(({ userId }) => userId === members[0]!.id)!.readSeq).toBe(sent.seq)
    for (const one of [device, theirs]) {
      await one.settled()
      expect(one.ofType('receipt')).toEqual([])
    }
  })

  test('unread counts are pushed all the same', async () => {
    const { owner, members, conversation } = await largeGroup()
    const device = await members[0]!.connect()
    await owner.sendMany(conversation, 3)
    await device.until(() => device.ofType('unread').at(-1)?.unread === 3, 'unread 3')
  })

  test('typing is told to those who look', async () => {
    const { owner, members, conversation } = await largeGroup()
    const { conversationId } = conversation
    const [looking, away, typing] = [await members[0]!.connect(), await members[0]!.connect(), await owner.connect()]
    await look(looking, conversationId)
    typing.send({ type: 'typing', conversationId, on: true })
    await looking.waitFor(({ type }) => type === 'typing', 'typing')
    await away.settled()
    expect(away.ofType('typing')).toEqual([])
  })
})

test('a device that looks while it is still being told what it missed is given no place to resume from that is ahead of that', async () => {
  const { owner, members, conversation } = await largeGroup()
  const small = await owner.group([members[0]!])
  const { position } = (await members[0]!.connect()).hello!
  const words = 'x'.repeat(1_000)
  await Promise.all(range(1, 400).map((n) => owner.send(n % 4 === 0 ? conversation : small, words)))
  const device = await members[0]!.open()
  const hello = device.sayHello({ token: members[0]!.token, position })
  device.send({ type: 'active', conversationId: conversation.conversationId })
  await hello
  const live = await Promise.all(range(1, 40).map((n) => owner.send(n % 4 === 0 ? conversation : small)))
  for (const { conversationId, seq } of live) await device.waitForSeq(conversationId, seq)
  expect(placesAhead(device.frames, [...(await owner.events(conversation)), ...(await owner.events(small))])).toEqual([])
  expect(device.ofType('head').length).toBeGreaterThan(0)
})

test('a conversation that grows large and small again is told without a hole', async () => {
  const [owner, member, ...others] = world().users('o', 'm', 'x', 'x', 'x')
  const conversation = await owner.group([member])
  const { conversationId } = conversation
  const device = await member.connect()
  for (let n = 0; n < 5; n += 1) {
    await owner.send(conversation)
    await owner.add(conversation, ...others)
    const many = await owner.sendMany(conversation, 2)
    await device.waitForSeq(conversationId, many.seq)
    for (const other of others) await owner.remove(conversation, other)
    const sent = await owner.send(conversation)
    await device.waitForSeq(conversationId, sent.seq)
  }
  expect(device.ofType('head').length).toBeGreaterThan(0)
  expect(device.seqs(conversationId)).toContain(device.lastSeq(conversationId))
})

test('one may look at a conversation that one has just made', async () => {
  const [owner, ...members] = world().users('o', 'm', 'm', 'm')
  const device = await owner.connect()
  for (let n = 0; n < 20; n += 1) {
    const { conversationId } = await owner.group(members, { name: unique('n') })
    device.send({ type: 'active', conversationId })
    const sent = await owner.send({ conversationId })
    await device.waitForSeq(conversationId, sent.seq)
    expect(device.ofType('error')).toEqual([])
    // The message itself, because the device looks.
    await device.waitForEvent((event) => event.conversationId === conversationId && event.seq === sent.seq, 'the message')
  }
})
