import { describe, expect, test } from 'vitest'
import { useServer } from '../support/app-server.js'
import type { Device } from '../support/device.js'
import { type Conversation, type User, eventually, text, unique } from '../support/world.js'

/** Some resumes here need more than a user may write in a second. */
const world = useServer({ load: { userUnitsPerSecond: 1_000_000_000 } })

const range = (from: number, to: number) => Array.from({ length: Math.max(0, to - from + 1) }, (_, n) => from + n)

/** Everything of these conversations after a position, as it must come. */
async function missed(user: User, conversations: readonly Conversation[], position: string): Promise<[string, number][]> {
  const all = await Promise.all(conversations.map((conversation) => user.events(conversation)))
  return all
    .flat()
    .filter((event) => event.position > position)
    .map(({ conversationId, seq }) => [conversationId, seq])
}

const sorted = (events: readonly [string, number][]) =>
  [...events].sort(([one, seq], [other, otherSeq]) => (one === other ? seq - otherSeq : one < other ? -1 : 1))
const came = (device: Device): [string, number][] => device.events().map(({ conversationId, seq }) => [conversationId, seq])

/** Resumes, waits for the end of what was missed, and for something live behind it. */
async function resume(user: User, position: string | undefined, conversation: Conversation, sender = user): Promise<Device> {
  const device = await user.connect({ position })
  expect(device.hello!.recovered).toBe(true)
  const live = await sender.send(conversation, 'live')
  await device.waitForSeq(conversation.conversationId, live.seq)
  return device
}

describe('a resume gives everything after the position, once, and then what is live, from', () => {
  async function scene() {
    const [a, b] = world().users('a', 'b')
    const conversations = [await a.group([b]), await a.group([b]), await a.direct(b)]
    for (const conversation of conversations) await a.sendMany(conversation, 2)
    return { a, b, conversations, write: () => Promise.all(conversations.map((conversation, n) => a.sendMany(conversation, n + 3))) }
  }
  type Scene = Awaited<ReturnType<typeof scene>>

  test.each<[string, (scene: Scene) => Promise<string>]>([
    ['hello', async ({ b }) => (await b.connect()).hello!.position!],
    [
      'a resumed hello',
      async ({ b }) => {
        const first = await b.connect()
        return (await b.connect({ position: first.hello!.position })).hello!.position!
      },
    ],
    ['the inbox', async ({ b }) => (await b.get<{ position: string }>('/v1/inbox')).position],
    ['a write', async ({ a, conversations }) => (await a.send(conversations[1]!)).position],
    [
      'the first event',
      async ({ a, b, conversations }) =>
        (await a.events(conversations[0]!))[0]!.position && (await b.events(conversations[0]!))[0]!.position,
    ],
    ['an event in between', async ({ b, conversations }) => (await b.events(conversations[1]!))[1]!.position],
  ])('%s', async (_, positionOf) => {
    const here = await scene()
    const position = await positionOf(here)
    await here.write()
    const device = await resume(here.b, position, here.conversations[0]!, here.a)
    expect(sorted(came(device))).toEqual(sorted(await missed(here.b, here.conversations, position)))
  })

  test('the resume of any frame of a connection', async () => {
    const { b, a, conversations, write } = await scene()
    const device = await b.connect()
    await write()
    await device.waitForSeq(conversations[2]!.conversationId, 7)
    for (const { resume: position } of device.ofType('events')) {
      const next = await resume(b, position, conversations[0]!, a)
      expect(sorted(came(next))).toEqual(sorted(await missed(b, conversations, position!)))
    }
    expect(device.ofType('events').length).toBeGreaterThan(3)
  })

  test('the resume of any frame of a resume: nothing is missing from there on', async () => {
    const { b, a, conversations, write } = await scene()
    const position = (await b.connect()).hello!.position
    await write()
    const first = await resume(b, position, conversations[0]!, a)
    const had = new Set<string>()
    for (const frame of first.ofType('events')) {
      for (const { conversationId, seq } of frame.events!) had.add(`${conversationId} ${seq}`)
      const next = await resume(b, frame.resume, conversations[0]!, a)
      for (const event of came(next)) had.add(event.join(' '))
      for (const event of await missed(b, conversations, position!)) expect(had).toContain(event.join(' '))
    }
  })
})

test('a resume with nothing missed brings nothing but what is live', async () => {
  const user = world().user()
  const conversation = await user.group()
  const { position } = (await user.connect()).hello!
  const device = await resume(user, position, conversation)
  expect(device.seqs(conversation.conversationId)).toEqual([1])
})

describe('of a conversation', () => {
  test.each(['left', 'removed from'])('%s meanwhile only that event comes', async (how) => {
    const [a, b] = world().users('a', 'b')
    const [conversation, other] = [await a.group([b]), await a.group([b])]
    const { position } = (await b.connect()).hello!
    await a.sendMany(conversation, 3)
    const { seq } = how === 'left' ? await b.leave(conversation) : await a.remove(conversation, b)
    await a.sendMany(conversation, 3)
    const device = await resume(b, position, other, a)
    expect(device.events(conversation.conversationId).map((event) => [event.seq, event.type, event.data.userId])).toEqual([
      [seq, how === 'left' ? 'MemberLeft' : 'MemberRemoved', b.id],
    ])
    expect(JSON.stringify(device.frames)).not.toContain('message 0')
    const again = await resume(b, device.position, other, a)
    expect(again.events(conversation.conversationId)).toEqual([])
  })

  test('joined meanwhile all from MemberJoined on', async () => {
    const [a, b] = world().users('a', 'b')
    const [conversation, other] = [await a.group(), await a.group([b])]
    await a.sendMany(conversation, 3)
    const { position } = (await b.connect()).hello!
    await a.send(conversation)
    const joined = await a.add(conversation, b)
    const { seq } = await a.sendMany(conversation, 3)
    const device = await resume(b, position, other, a)
    expect(device.seqs(conversation.conversationId)).toEqual(range(joined.seq, seq))
    expect(device.events(conversation.conversationId)[0]).toMatchObject({ type: 'MemberJoined', data: { userId: b.id } })
  })

  test('made meanwhile all from its creation on', async () => {
    const [a, b] = world().users('a', 'b')
    const { position } = (await b.connect()).hello!
    const conversation = await a.direct(b)
    const { seq } = await a.sendMany(conversation, 3)
    const device = await resume(b, position, conversation, a)
    expect(device.seqs(conversation.conversationId)).toEqual(range(0, seq + 1))
  })

  test('joined and left meanwhile only the leaving comes', async () => {
    const [a, b] = world().users('a', 'b')
    const [conversation, other] = [await a.group(), await a.group([b])]
    const { position } = (await b.connect()).hello!
    await a.add(conversation, b)
    await a.sendMany(conversation, 2)
    const { seq } = await a.remove(conversation, b)
    const device = await resume(b, position, other, a)
    expect(device.seqs(conversation.conversationId)).toEqual([seq])
  })

  test.each([1, 3])(
    'left and joined again meanwhile, %i times, the last leaving comes, and all from the last MemberJoined on',
    async (times) => {
      const [a, b] = world().users('a', 'b')
      const conversation = await a.group([b])
      const { position } = (await b.connect()).hello!
      await a.send(conversation)
      let [removed, joined] = [{ seq: -1 }, { seq: -1 }]
      for (let time = 0; time < times; time += 1) {
        removed = await a.remove(conversation, b)
        await a.sendMany(conversation, 2)
        joined = await a.add(conversation, b)
      }
      const { seq } = await a.sendMany(conversation, 2)
      const device = await resume(b, position, conversation, a)
      expect(device.seqs(conversation.conversationId)).toEqual([removed.seq, ...range(joined.seq, seq + 1)])
      expect(device.events(conversation.conversationId)[0]).toMatchObject({ type: 'MemberRemoved', data: { userId: b.id } })
      const again = await resume(b, device.position, conversation, a)
      expect(again.seqs(conversation.conversationId)).toEqual([seq + 2])
    },
  )

  test('that one left before the position nothing comes', async () => {
    const [a, b] = world().users('a', 'b')
    const [conversation, other] = [await a.group([b]), await a.group([b])]
    await a.remove(conversation, b)
    const device = await b.connect()
    await a.sendMany(conversation, 2)
    const next = await resume(b, device.position, other, a)
    expect(next.events(conversation.conversationId)).toEqual([])
  })
})

test('recalled content is blanked in what is resumed, that of the message and of its edits', async () => {
  const [a, b] = world().users('a', 'b')
  const conversation = await a.group([b])
  const { conversationId } = conversation
  const { position } = (await b.connect()).hello!
  const secret = await a.send(conversation, 'SECRET')
  const kept = await a.send(conversation, 'kept')
  await a.write('PATCH', `/v1/conversations/${conversationId}/messages/${secret.seq}`, { content: text('SECRET too') })
  await a.recall(conversation, secret.seq)
  const device = await resume(b, position, conversation, a)
  expect(JSON.stringify(device.frames)).not.toContain('SECRET')
  const contents = device
    .events(conversationId)
    .slice(0, 4)
    .map(({ type, data }) => [type, data.content])
  expect(contents).toEqual([
    ['MessageSent', null],
    ['MessageSent', text('kept')],
    ['MessageEdited', null],
    ['MessageRecalled', undefined],
  ])
  expect(device.events(conversationId)[1]!.seq).toBe(kept.seq)
})

test('recalled content is blanked also where the recall is far behind it', async () => {
  const [a, b] = world().users('a', 'b')
  const conversation = await a.group([b])
  const { conversationId } = conversation
  const { position } = (await b.connect()).hello!
  const secret = await a.send(conversation, 'SECRET')
  await Promise.all(range(1, 600).map(() => a.send(conversation)))
  await a.recall(conversation, secret.seq)
  const device = await resume(b, position, conversation, a)
  expect(JSON.stringify(device.frames)).not.toContain('SECRET')
  expect(device.seqs(conversationId)).toEqual(range(1, 603))
  expect((await device.ask('events.get', { conversationId, after: 0, limit: 1 })).events![0]!.data).toMatchObject({
    ordinal: 1,
    content: null,
  })
})

describe('receipts that moved', () => {
  // Sending moves the sender's read cursor: both are told where one of them moved.
  test("come after the events, those of other users and one's own; those from before the position do not", async () => {
    const [a, b, c] = world().users('a', 'b', 'c')
    const conversation = await a.group([b, c])
    const { conversationId } = conversation
    await a.sendMany(conversation, 4)
    await c.write('POST', `/v1/conversations/${conversationId}/read`, { seq: 1 })
    const { position } = (await b.connect()).hello!
    const [sent, phone] = [await a.send(conversation), await a.connect()]
    phone.send({ type: 'ack', conversationId, seq: sent.seq })
    await b.write('POST', `/v1/conversations/${conversationId}/read`, { seq: 2 })
    await phone.waitFor(({ type, deliveredSeq }) => type === 'receipt' && deliveredSeq === sent.seq, 'the receipt')
    const device = await b.connect({ position })
    await device.until(() => device.ofType('receipt').length === 2, 'two receipts')
    expect(device.ofType('receipt').sort((one, other) => (one.userId! < other.userId! ? -1 : 1))).toEqual([
      { type: 'receipt', conversationId, userId: a.id, readSeq: sent.seq, deliveredSeq: sent.seq },
      { type: 'receipt', conversationId, userId: b.id, readSeq: 2 },
    ])
    const types = device.frames.map(({ type }) => type)
    expect(types.lastIndexOf('events')).toBeLessThan(types.indexOf('receipt'))
  })

  test('come also where no event was missed', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    await a.sendMany(conversation, 2)
    const { position } = (await a.connect()).hello!
    await b.write('POST', `/v1/conversations/${conversationId}/read`, { seq: 2 })
    const device = await a.connect({ position })
    expect(await device.waitFor(({ type }) => type === 'receipt', 'the receipt')).toEqual({
      type: 'receipt',
      conversationId,
      userId: b.id,
      readSeq: 2,
    })
    expect(device.events()).toEqual([])
  })
})

describe('what can not be resumed is said: recovered false, live from the position given.', () => {
  test.each([
    ['nonsense', () => 'nonsense'],
    ['empty', () => ''],
    ['too long a number', (now: string) => `${now}0`],
    ['negative', (now: string) => `-${now.slice(1)}`],
    ['of the future', (now: string) => now.replace(/^0/, '9')],
    ['a moment ahead', (now: string) => now.replace(/^\d+/, (place) => String(Number(place) + 1_000_000).padStart(place.length, '0'))],
    ['without a hash', (now: string) => now.replace(/\..*/, '')],
    ["with another event's hash", (now: string) => now.replace(/\..*/, '.AAAAAAAA')],
  ])('A position that is %s', async (_, positionOf) => {
    const user = world().user()
    const conversation = await user.group()
    await user.sendMany(conversation, 3)
    const now = (await user.connect()).hello!.position!
    const device = await user.connect({ position: positionOf(now) })
    expect(device.hello).toMatchObject({ recovered: false, reason: 'other_log' })
    expect(device.hello!.position! >= now).toBe(true)
    const sent = await user.send(conversation)
    await device.waitForSeq(conversation.conversationId, sent.seq)
    expect(device.seqs(conversation.conversationId)).toEqual([sent.seq])
    expect((await user.connect({ position: device.hello!.position })).hello!.recovered).toBe(true)
  })

  test('More than 10,000 missed events, and not one less', async () => {
    const user = world().user()
    const [conversation, other] = [await user.group(), await user.group()]
    const { position } = (await user.connect()).hello!
    let end = position!
    for (let n = 0; n < 10; n += 1) {
      ;({ position: end } = await user.write('POST', `/v1/conversations/${conversation.conversationId}/members`, {
        userIds: range(1, 1_000).map(() => unique('x')),
      }))
    }
    await eventually(async () => (await user.call('GET', `/v1/inbox?minPosition=${end}`)).status === 200, 'the read models')
    const device = await user.connect({ position })
    expect(device.hello!.recovered).toBe(true)
    await device.waitForSeq(conversation.conversationId, 10_000)
    expect(device.seqs(conversation.conversationId)).toEqual(range(1, 10_000))
    const { seq } = await user.send(other)
    const late = await user.connect({ position })
    expect(late.hello).toMatchObject({ recovered: false, reason: 'too_far' })
    const live = await user.send(other)
    await late.waitForSeq(other.conversationId, live.seq)
    expect(late.events().map((event) => event.seq)).toEqual([seq + 1])
  })
})

test("a resume in large frames goes at the device's pace", async () => {
  const [a, b] = world().users('a', 'b')
  const conversation = await a.group([b])
  const { position } = (await b.connect()).hello!
  const words = 'x'.repeat(15_000)
  await Promise.all(range(1, 200).map(() => a.send(conversation, words)))
  const device = await b.open()
  const hello = device.sayHello({ token: b.token, position })
  await hello
  device.pause()
  // The server meanwhile goes on for everybody else.
  await a.sendMany(conversation, 20)
  device.read()
  await device.waitForSeq(conversation.conversationId, 220)
  expect(device.seqs(conversation.conversationId)).toEqual(range(1, 220))
}, 90_000)
