import { describe, expect, test } from 'vitest'
import { useServer } from '../support/app-server.js'
import type { Device, Frame } from '../support/device.js'
import { type Conversation, text, unique } from '../support/world.js'

const world = useServer()

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n)
const last = (device: Device, type: string, conversationId: string) =>
  device
    .ofType(type)
    .filter((frame) => frame.conversationId === conversationId)
    .at(-1)

describe('an event', () => {
  test('goes to every device of every member, the sending one too, and to nobody else', async () => {
    const [a, b, stranger] = world().users('a', 'b', 's')
    const conversation = await a.group([b])
    const devices = [await a.connect(), await a.connect(), await b.connect(), await b.connect()]
    const outside = await stranger.connect()
    const answer = await devices[0]!.ask('message.send', {
      conversationId: conversation.conversationId,
      clientMessageId: 'm',
      content: text('hi'),
    })
    for (const device of devices) {
      await device.waitForSeq(conversation.conversationId, answer.seq!)
      expect(device.events()).toEqual([
        expect.objectContaining({
          conversationId: conversation.conversationId,
          seq: 1,
          type: 'MessageSent',
          head: 1,
          at: answer.sentAt,
          position: answer.position,
        }),
      ])
    }
    await outside.settled()
    expect(outside.frames.map(({ type }) => type)).toEqual(['ok', 'pong'])
  })

  test('is the same in a push, in events.get and in GET events', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const device = await b.connect()
    const sent = await a.send(conversation, 'same ✓', { mentions: [b.id] })
    const pushed = await device.waitForEvent(({ seq }) => seq === sent.seq, 'the message')
    expect((await device.ask('events.get', { conversationId: conversation.conversationId, after: 0 })).events).toEqual([pushed])
    expect((await a.events(conversation))[1]).toEqual(pushed)
  })

  test('of a new conversation comes from revision 0', async () => {
    const [a, b] = world().users('a', 'b')
    const device = await b.connect()
    const conversation = await a.direct(b)
    const sent = await a.send(conversation)
    await device.waitForSeq(conversation.conversationId, sent.seq)
    expect(device.seqs(conversation.conversationId)).toEqual([0, 1])
  })

  test('of many senders at once comes to everybody in one order, dense', async () => {
    const members = world().users('a', 'b', 'c', 'd')
    const conversation = await members[0].group(members.slice(1))
    const devices = await Promise.all(members.map((member) => member.connect()))
    await Promise.all(members.map(async (member) => Promise.all(range(1, 50).map(() => member.send(conversation)))))
    for (const device of devices) await device.waitForSeq(conversation.conversationId, 200)
    const [first, ...others] = devices.map((device) =>
      device.events(conversation.conversationId).map(({ seq, actor, data }) => [seq, actor.userId, data.clientMessageId, data.ordinal]),
    )
    expect(first!.map(([seq]) => seq)).toEqual(range(1, 200))
    expect(first!.map(([, , , ordinal]) => ordinal)).toEqual(range(1, 200))
    for (const other of others) expect(other).toEqual(first)
  })
})

describe('a member', () => {
  test('who joins gets its own MemberJoined first', async () => {
    const [owner, joining] = world().users('o', 'j')
    const conversation = await owner.group()
    await owner.send(conversation)
    const device = await joining.connect()
    await owner.add(conversation, joining)
    const sent = await owner.send(conversation)
    await device.waitForSeq(conversation.conversationId, sent.seq)
    expect(device.events().map(({ seq, type, data }) => [seq, type, data.userId])).toEqual([
      [2, 'MemberJoined', joining.id],
      [3, 'MessageSent', undefined],
    ])
  })

  test.each(['is removed', 'leaves'])('who %s gets that event last, and nothing after it', async (how) => {
    const [owner, member] = world().users('o', 'm')
    const conversation = await owner.group([member])
    const [device, theirs] = [await member.connect(), await owner.connect()]
    await owner.send(conversation)
    if (how === 'leaves') await member.leave(conversation)
    else await owner.remove(conversation, member)
    const after = await owner.send(conversation)
    await theirs.waitForSeq(conversation.conversationId, after.seq)
    await device.settled()
    expect(device.events().map(({ type }) => type)).toEqual(['MessageSent', how === 'leaves' ? 'MemberLeft' : 'MemberRemoved'])
    expect(await device.request('events.get', { conversationId: conversation.conversationId })).toMatchObject({
      type: 'error',
      code: 'not_found',
    })
    expect(
      await device.request('message.send', { conversationId: conversation.conversationId, clientMessageId: 'm', content: text('x') }),
    ).toMatchObject({ type: 'error', code: 'not_found' })
  })

  test('who comes back is told by head how far it went without it, on the devices that saw it go', async () => {
    const [owner, guest] = world().users('o', 'g')
    const conversation = await owner.group([guest])
    const { conversationId } = conversation
    const before = await guest.connect({ deviceId: 'before' })
    const { position } = before
    const left = await owner.remove(conversation, guest)
    await before.waitForSeq(conversationId, left.seq)
    // Alone here, and told of its leaving by the resume.
    before.close()
    await before.closed
    const device = await guest.connect({ deviceId: 'after', position })
    await device.waitForSeq(conversationId, left.seq)
    const missed = await owner.sendMany(conversation, 2)
    await owner.add(conversation, guest)
    const again = await owner.remove(conversation, guest)
    const back = await owner.add(conversation, guest)
    await device.waitForSeq(conversationId, back.seq)
    const told = device.frames.flatMap(({ type, seq, events = [] }) =>
      type === 'head' ? [`head ${seq}`] : events.map((event) => `${event.seq}`),
    )
    expect(told).toEqual([`${left.seq}`, `head ${missed.seq}`, `${missed.seq + 1}`, `${again.seq}`, `${back.seq}`])
  })

  test('who comes and goes in the middle of traffic gets just what lies between', async () => {
    const [owner, guest] = world().users('o', 'g')
    const conversation = await owner.group()
    const device = await guest.connect()
    const spells: [number, number][] = []
    for (let n = 0; n < 10; n += 1) {
      const traffic = range(1, 10).map(() => owner.send(conversation))
      const joined = await owner.add(conversation, guest)
      const more = range(1, 10).map(() => owner.send(conversation))
      const left = await owner.remove(conversation, guest)
      await Promise.all([...traffic, ...more])
      spells.push([joined.seq, left.seq])
    }
    await device.waitForSeq(conversation.conversationId, spells.at(-1)![1])
    await device.settled()
    expect(device.seqs(conversation.conversationId)).toEqual(spells.flatMap(([from, to]) => range(from, to)))
  })
})

describe('receipts', () => {
  test("are pushed to all members, the reader's own devices too", async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const sent = await a.send(conversation)
    const devices = [await a.connect(), await b.connect(), await b.connect()]
    const answer = await devices[1]!.ask('read', { conversationId, seq: sent.seq })
    expect(answer).toEqual({ type: 'ok', ref: answer.ref, readSeq: sent.seq, position: expect.stringMatching(/./) })
    for (const device of devices) {
      const receipt = await device.waitFor(({ type }) => type === 'receipt', 'the receipt')
      expect(receipt).toEqual({ type: 'receipt', conversationId, userId: b.id, readSeq: sent.seq })
    }
  })

  test('of reading backwards are none: unchanged, and the head', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const sent = await a.sendMany(conversation, 3)
    const device = await b.connect()
    await device.ask('read', { conversationId: conversation.conversationId, seq: sent.seq })
    expect(await device.ask('read', { conversationId: conversation.conversationId, seq: 1 })).toMatchObject({
      readSeq: sent.seq,
      unchanged: true,
      seq: sent.seq,
    })
    await device.settled()
    expect(device.ofType('receipt')).toHaveLength(1)
  })

  test('beyond the head are refused', async () => {
    const user = world().user()
    const { conversationId } = await user.group()
    const device = await user.connect()
    expect(await device.request('read', { conversationId, seq: 1 })).toMatchObject({ type: 'error', code: 'invalid_request' })
    device.send({ type: 'ack', conversationId, seq: 1 })
    await device.waitFor(({ type, ref }) => type === 'error' && ref === undefined, 'the error without ref')
  })

  test('without a ref are gathered: one fact of each kind, the last one', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    await a.sendMany(conversation, 9)
    const [device, theirs] = [await b.connect(), await a.connect()]
    for (const seq of [1, 5, 9, 4]) device.send({ type: 'ack', conversationId, seq })
    for (const seq of [2, 7, 3]) device.send({ type: 'read', conversationId, seq })
    await theirs.until(() => theirs.ofType('receipt').some(({ readSeq }) => readSeq !== undefined), 'the read receipt')
    expect(theirs.ofType('receipt')).toEqual([
      { type: 'receipt', conversationId, userId: b.id, deliveredSeq: 9 },
      { type: 'receipt', conversationId, userId: b.id, readSeq: 7 },
    ])
    expect(device.ofType('ok')).toHaveLength(1)
  })

  test('deliveredSeq is the highest that any device has acknowledged', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    await a.sendMany(conversation, 5)
    const [one, other, theirs] = [await b.connect(), await b.connect(), await a.connect()]
    one.send({ type: 'ack', conversationId, seq: 4 })
    await theirs.waitFor(({ deliveredSeq }) => deliveredSeq === 4, 'delivered 4')
    other.send({ type: 'ack', conversationId, seq: 2 })
    other.send({ type: 'ack', conversationId, seq: 5 })
    await theirs.waitFor(({ deliveredSeq }) => deliveredSeq === 5, 'delivered 5')
    expect(theirs.ofType('receipt').map(({ deliveredSeq }) => deliveredSeq)).toEqual([4, 5])
    // What is written later is later in the log: the receipt is there when that is.
    const { position } = await a.send(conversation)
    const { items } = await a.get<{ items: { userId: string; deliveredSeq: number; readSeq: number | null }[] }>(
      `/v1/conversations/${conversationId}/receipts?minPosition=${position}`,
    )
    expect(items.find(({ userId }) => userId === b.id)).toMatchObject({ deliveredSeq: 5, readSeq: null })
  })
})

describe('unread counts', () => {
  const counts = (device: Device, { conversationId }: Conversation): Partial<Frame> => {
    const { unread, mentions, total } = last(device, 'unread', conversationId) ?? {}
    return { unread, mentions, total } as Partial<Frame>
  }
  const becomes = async (device: Device, conversation: Conversation, wanted: { unread: number; mentions: number; total: number }) => {
    await device.until(() => JSON.stringify(counts(device, conversation)) === JSON.stringify(wanted), `unread ${JSON.stringify(wanted)}`)
  }

  test('follow messages, mentions, and reading on another device', async () => {
    const [a, b] = world().users('a', 'b')
    const [one, other] = [await a.group([b]), await a.group([b])]
    const [phone, laptop] = [await b.connect(), await b.connect()]
    await a.send(one)
    const second = await a.send(one, 'you', { mentions: [b.id] })
    await becomes(phone, one, { unread: 2, mentions: 1, total: 2 })
    const third = await a.send(other)
    await becomes(phone, other, { unread: 1, mentions: 0, total: 3 })
    await laptop.ask('read', { conversationId: one.conversationId, seq: second.seq })
    for (const device of [phone, laptop]) await becomes(device, one, { unread: 0, mentions: 0, total: 1 })
    await laptop.ask('read', { conversationId: other.conversationId, seq: third.seq })
    for (const device of [phone, laptop]) await becomes(device, other, { unread: 0, mentions: 0, total: 0 })
  })

  test('are pushed to those whose counts changed only', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const [mine, theirs] = [await a.connect(), await b.connect()]
    const sent = await a.send(conversation, 'me', { mentions: [a.id] })
    await becomes(theirs, conversation, { unread: 1, mentions: 0, total: 1 })
    await mine.waitForSeq(conversation.conversationId, sent.seq)
    await a.recall(conversation, sent.seq)
    await theirs.waitForSeq(conversation.conversationId, sent.seq + 1)
    await a.send(conversation)
    await becomes(theirs, conversation, { unread: 2, mentions: 0, total: 2 })
    expect(theirs.ofType('unread')).toHaveLength(2)
    expect(mine.ofType('unread')).toEqual([])
  })

  test('of a muted conversation stay out of the total, its mentions do not', async () => {
    const [a, b] = world().users('a', 'b')
    const [loud, muted] = [await a.group([b]), await a.group([b])]
    const device = await b.connect()
    await a.send(muted)
    await becomes(device, muted, { unread: 1, mentions: 0, total: 1 })
    await b.write('PATCH', `/v1/inbox/${muted.conversationId}`, { muted: true })
    await becomes(device, muted, { unread: 1, mentions: 0, total: 0 })
    await a.send(muted, 'you', { mentions: [b.id] })
    await becomes(device, muted, { unread: 2, mentions: 1, total: 0 })
    await a.send(loud)
    await becomes(device, loud, { unread: 1, mentions: 0, total: 1 })
    await b.write('PATCH', `/v1/inbox/${muted.conversationId}`, { muted: false })
    await becomes(device, muted, { unread: 2, mentions: 1, total: 3 })
  })

  test('of a conversation that one leaves are gone from the total before that, the last that comes of it', async () => {
    const [a, b] = world().users('a', 'b')
    const [left, other] = [await a.group([b]), await a.group([b])]
    const device = await b.connect()
    await a.send(other)
    await becomes(device, other, { unread: 1, mentions: 0, total: 1 })
    await a.send(left, 'you', { mentions: [b.id] })
    await becomes(device, left, { unread: 1, mentions: 1, total: 2 })
    const { seq } = await b.leave(left)
    await device.waitForSeq(left.conversationId, seq)
    expect(device.frames.slice(-2)).toMatchObject([
      { type: 'unread', conversationId: left.conversationId, unread: 0, mentions: 0, total: 1 },
      { type: 'events', events: [{ type: 'MemberLeft' }] },
    ])
  })

  test('of a muted conversation stay out of the total also for who left it and came back', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const device = await b.connect()
    await b.write('PATCH', `/v1/inbox/${conversation.conversationId}`, { muted: true })
    await b.leave(conversation)
    await a.add(conversation, b)
    await a.send(conversation)
    expect(await device.waitFor(({ type }) => type === 'unread', 'unread')).toMatchObject({ unread: 1, total: 0 })
  })

  test("begin with one's joining, and go down with one's own sending", async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group()
    await a.sendMany(conversation, 5)
    const device = await b.connect()
    await a.add(conversation, b)
    await a.send(conversation)
    await becomes(device, conversation, { unread: 1, mentions: 0, total: 1 })
    await b.send(conversation)
    await becomes(device, conversation, { unread: 0, mentions: 0, total: 0 })
  })

  test('are those of GET /unread, also for who comes later', async () => {
    const [a, b] = world().users('a', 'b')
    const conversations = [await a.group([b]), await a.group([b]), await a.direct(b)]
    for (const [index, conversation] of conversations.entries()) await a.sendMany(conversation, index + 1)
    await a.send(conversations[0]!, 'you', { mentions: [b.id] })
    await b.write('PATCH', `/v1/inbox/${conversations[1]!.conversationId}`, { muted: true })
    const device = await b.connect()
    const sent = await a.send(conversations[2]!)
    await becomes(device, conversations[2]!, { unread: 4, mentions: 0, total: 6 })
    expect(await b.get(`/v1/unread?minPosition=${sent.position}`)).toMatchObject({ total: 6, mentions: 1 })
  })
})

describe('typing', () => {
  test('goes to the other users only, and its end always', async () => {
    const [a, b, c] = world().users('a', 'b', 'c')
    const { conversationId } = await a.group([b, c])
    const [mine, own, ...others] = [await a.connect(), await a.connect(), await b.connect(), await b.connect(), await c.connect()]
    for (const on of [true, true, false, false]) mine.send({ type: 'typing', conversationId, on })
    await mine.settled()
    for (const device of others) {
      await device.until(() => device.ofType('typing').length === 3, 'on, off and off')
      expect(device.ofType('typing')).toEqual([true, false, false].map((on) => ({ type: 'typing', conversationId, userId: a.id, on })))
    }
    for (const device of [mine, own]) {
      await device.settled()
      expect(device.ofType('typing')).toEqual([])
    }
  })

  test('is told once a second, however often it is said', async () => {
    const [a, b] = world().users('a', 'b')
    const { conversationId } = await a.group([b])
    const [mine, theirs] = [await a.connect(), await b.connect()]
    const begun = performance.now()
    while (theirs.ofType('typing').length < 3) {
      for (let n = 0; n < 10; n += 1) mine.send({ type: 'typing', conversationId, on: true })
      await mine.settled()
      await theirs.settled()
    }
    expect(performance.now() - begun).toBeGreaterThan(1_900)
  })

  test('of several at once is told of each', async () => {
    const [a, b, c] = world().users('a', 'b', 'c')
    const { conversationId } = await a.group([b, c])
    const [ofA, ofB, watching] = [await a.connect(), await b.connect(), await c.connect()]
    for (const device of [ofA, ofB]) device.send({ type: 'typing', conversationId, on: true })
    await watching.until(() => watching.ofType('typing').length === 2, 'both')
    expect(watching.ofType('typing').map(({ userId }) => userId)).toEqual(expect.arrayContaining([a.id, b.id]))
  })

  test('is refused across a block', async () => {
    const [a, b] = world().users('a', 'b')
    const direct = await a.direct(b)
    const group = await a.group([b])
    const [mine, theirs] = [await a.connect(), await b.connect()]
    await b.write('PUT', `/v1/blocks/${a.id}`)
    for (const { conversationId } of [direct, group]) mine.send({ type: 'typing', conversationId, on: true })
    await theirs.waitFor(({ type }) => type === 'typing', 'typing in the group')
    await mine.settled()
    await theirs.settled()
    expect(theirs.ofType('typing').map(({ conversationId }) => conversationId)).toEqual([group.conversationId])
    expect(mine.ofType('error')).toEqual([{ type: 'error', code: 'blocked', message: expect.any(String), temporary: false }])
  })
})

describe('cursors without a ref', () => {
  // Nobody waits for so long.
  const world = useServer({ times: { cursorsMs: 3_600_000 } })

  test('are written when the device goes', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const sent = await a.sendMany(conversation, 3)
    const [device, theirs] = [await b.connect(), await a.connect()]
    device.send({ type: 'read', conversationId, seq: sent.seq })
    device.send({ type: 'ack', conversationId, seq: sent.seq })
    await device.settled()
    device.close()
    await theirs.until(() => theirs.ofType('receipt').length === 2, 'both receipts')
  })
})

test('a busy conversation of more than 100 members is merged: whole, in order, in fewer frames', async () => {
  const [owner, watching] = world().users('o', 'w')
  const conversation = await owner.group([watching])
  await owner.write('POST', `/v1/conversations/${conversation.conversationId}/members`, {
    userIds: Array.from({ length: 110 }, () => unique('x')),
  })
  const [device, sending] = [await watching.connect(), await owner.connect()]
  const { conversationId } = conversation
  const from = (await owner.events(conversation)).length
  const message = () => ({ conversationId, clientMessageId: unique('m'), content: text('x') })
  const begun = performance.now()
  for (let n = 0; n < 50; n += 1) await Promise.all(range(1, 6).map(() => sending.ask('message.send', message())))
  const tookMs = performance.now() - begun
  await device.waitForSeq(conversationId, from + 299)
  expect(device.seqs(conversationId)).toEqual(range(from, from + 299))
  // The first 20 make it busy; from then on a frame in 100 ms. Where a slow machine sends less than 20 a second, each has its own.
  expect(device.ofType('events').length).toBeLessThanOrEqual(tookMs / 50 + 22)
  expect(device.ofType('head')).toEqual([])
})
