import { describe, expect, test } from 'vitest'
import { FrameRate } from '../../src/gateway/frame-rate.js'
import { useServer } from '../support/app-server.js'
import { text, unique } from '../support/world.js'

const world = useServer()

describe('what is no frame of this protocol closes with 4504:', () => {
  test.each([
    ['binary', Buffer.from('{"type":"ping"}'), { binary: true }],
    ['no JSON', 'hello', {}],
    ['half a JSON', '{"type":"ping"', {}],
    ['empty', '', {}],
    ['an array', '[{"type":"ping"}]', {}],
    ['a string', '"ping"', {}],
    ['null', 'null', {}],
    ['without type', '{"ref":1}', {}],
    ['with a type that is no string', '{"type":1,"ref":1}', {}],
  ])('%s', async (_, data, options) => {
    const device = await world().user().connect()
    device.sendRaw(data, options)
    expect(await device.waitForClose()).toBe(4504)
    expect(device.frames.at(-1)).toMatchObject({ type: 'error', code: 'invalid_request', temporary: false })
    expect(device.frames.at(-1)).not.toHaveProperty('ref')
  })

  test('also before hello', async () => {
    const device = await world().open()
    device.sendRaw('[]')
    expect(await device.waitForClose()).toBe(4504)
  })
})

test('a frame of more than 64 KiB closes with 1009, one of just that does not', async () => {
  const device = await world().user().connect()
  const frame = (bytes: number) => {
    const empty = JSON.stringify({ type: 'nothing', ref: 900, filler: '' })
    return empty.replace('""', `"${'x'.repeat(bytes - empty.length)}"`)
  }
  device.sendRaw(frame(65_536))
  expect(await device.answerTo(900)).toMatchObject({ type: 'error', code: 'invalid_request' })
  device.sendRaw(frame(65_537))
  expect(await device.waitForClose()).toBe(1009)
  expect(device.frames.at(-1)).toMatchObject({ type: 'error', code: 'payload_too_large', temporary: false })
  expect(device.frames.at(-1)).not.toHaveProperty('ref')
})

test('a message in more than 1,024 fragments closes with 1009, one of just so many does not', async () => {
  const device = await world().user().connect()
  const sendIn = (fragments: number) => {
    device.sendRaw('{"type":"nothing","ref":901', { fin: false })
    for (let n = 2; n < fragments; n += 1) device.sendRaw(' ', { fin: false })
    device.sendRaw('}')
  }
  sendIn(1_024)
  expect(await device.answerTo(901)).toMatchObject({ type: 'error', code: 'invalid_request' })
  sendIn(1_025)
  expect(await device.waitForClose()).toBe(1009)
  expect(device.frames.at(-1)).toMatchObject({ type: 'error', code: 'payload_too_large' })
})

describe('any other fault is an error with the ref, and the connection stays:', () => {
  const content = text('x')
  test.each<[string, string, object, string]>([
    ['an unknown type', 'message.sned', {}, 'invalid_request'],
    ['a type of the prototype', 'constructor', {}, 'invalid_request'],
    ['a missing field', 'message.send', { conversationId: 'c', content }, 'invalid_request'],
    ['a field of another type', 'message.send', { conversationId: 'c', clientMessageId: 7, content }, 'invalid_request'],
    ['an unknown field', 'message.send', { conversationId: 'c', clientMessageId: 'm', content, urgent: true }, 'invalid_request'],
    ['content of no type', 'message.send', { conversationId: 'c', clientMessageId: 'm', content: { text: 'x' } }, 'invalid_request'],
    ['empty text', 'message.send', { conversationId: 'c', clientMessageId: 'm', content: text('') }, 'invalid_request'],
    [
      'content above 32 KiB',
      'message.send',
      { conversationId: 'c', clientMessageId: 'm', content: { type: 'custom', data: { x: 'x'.repeat(33_000) } } },
      'payload_too_large',
    ],
    ['a seq that is none', 'message.edit', { conversationId: 'c', seq: 1.5, content }, 'invalid_request'],
    ['a negative seq', 'read', { conversationId: 'c', seq: -1 }, 'invalid_request'],
    ['after below −1', 'events.get', { conversationId: 'c', after: -2 }, 'invalid_request'],
    ['a limit above 200', 'events.get', { conversationId: 'c', limit: 201 }, 'invalid_request'],
    ['a limit of 0', 'events.get', { conversationId: 'c', limit: 0 }, 'invalid_request'],
    ['nobody asked about', 'presence.query', { userIds: [] }, 'invalid_request'],
    ['501 users asked about', 'presence.query', { userIds: Array.from({ length: 501 }, (_, n) => `u${n}`) }, 'invalid_request'],
    ['an emoji above 32 bytes', 'reaction.add', { conversationId: 'c', seq: 1, emoji: '👍'.repeat(9) }, 'invalid_request'],
    ['a conversation that is not there', 'message.send', { conversationId: 'g-nowhere', clientMessageId: 'm', content }, 'not_found'],
    ['a conversation that is not there, read', 'read', { conversationId: 'g-nowhere', seq: 1 }, 'not_found'],
    ['a conversation that is not there, asked', 'events.get', { conversationId: 'g-nowhere' }, 'not_found'],
  ])('%s', async (_, type, fields, code) => {
    const device = await world().user().connect()
    expect(await device.request(type, fields)).toMatchObject({ type: 'error', code, temporary: false, message: expect.stringMatching(/./) })
    await device.settled()
  })

  test('a request without a ref, or with one that is none, gets an error without', async () => {
    const user = world().user()
    const { conversationId } = await user.group()
    const device = await user.connect()
    const frame = { type: 'message.send', conversationId, clientMessageId: 'm', content }
    for (const ref of [undefined, -1, 1.5, '1', null, 2 ** 53]) device.send({ ...frame, ref })
    await device.settled()
    const errors = device.ofType('error')
    expect(errors.map(({ code, ref }) => [code, ref])).toEqual(Array.from({ length: 6 }, () => ['invalid_request', undefined]))
    expect(device.events()).toEqual([])
  })

  test.each([
    ['read of a stranger', { type: 'read', conversationId: 'g-nowhere', seq: 1 }],
    ['ack of a stranger', { type: 'ack', conversationId: 'g-nowhere', seq: 1 }],
    ['typing of a stranger', { type: 'typing', conversationId: 'g-nowhere', on: true }],
    ['active of a stranger', { type: 'active', conversationId: 'g-nowhere' }],
  ])('%s, without ref', async (_, frame) => {
    const device = await world().user().connect()
    device.send(frame)
    const error = await device.waitFor(({ type }) => type === 'error', 'error')
    expect(error).toMatchObject({ code: 'not_found', temporary: false })
    expect(error).not.toHaveProperty('ref')
    await device.settled()
  })
})

test('ping is answered by pong, with its ref where it has one', async () => {
  const device = await world().user().connect()
  device.send({ type: 'ping' })
  device.send({ type: 'ping', ref: 0 })
  await device.until(() => device.ofType('pong').length === 2, 'two pongs')
  expect(device.ofType('pong')).toEqual([{ type: 'pong' }, { type: 'pong', ref: 0 }])
})

test('each of many requests at once has exactly one answer, its own', async () => {
  const user = world().user()
  const { conversationId } = await user.group()
  const device = await user.connect()
  const wanted = Array.from({ length: 300 }, (_, n) => (n % 3 === 0 ? 'ok' : n % 3 === 1 ? 'not_found' : 'invalid_request'))
  const answers = await Promise.all(
    wanted.map((kind, n) =>
      device.request('message.send', {
        conversationId: kind === 'not_found' ? 'g-nowhere' : conversationId,
        clientMessageId: `m${n}`,
        content: kind === 'invalid_request' ? {} : text(`${n}`),
      }),
    ),
  )
  expect(answers.map((answer) => answer.code ?? answer.type)).toEqual(wanted)
  expect(answers.filter(({ type }) => type === 'ok').map(({ seq }) => seq)).toEqual(Array.from({ length: 100 }, (_, n) => n + 1))
  await device.settled()
  expect(device.frames.filter(({ type }) => type === 'ok' || type === 'error')).toHaveLength(301)
})

describe('what a request does', () => {
  test('a message: its place and its time; again: the same, as a duplicate', async () => {
    const user = world().user()
    const { conversationId } = await user.group()
    const device = await user.connect()
    const message = { conversationId, clientMessageId: 'once', content: text('x') }
    const first = await device.ask('message.send', message)
    expect(first).toEqual({
      type: 'ok',
      ref: first.ref,
      conversationId,
      seq: 1,
      ordinal: 1,
      position: expect.stringMatching(/./),
      sentAt: expect.stringMatching(/^\d{4}-.*\.\d{3}Z$/),
    })
    const again = await device.ask('message.send', message)
    expect(again).toEqual({ ...first, ref: again.ref, duplicate: true })
    expect(await device.request('message.send', { ...message, content: text('y') })).toMatchObject({
      type: 'error',
      code: 'idempotency_conflict',
      message: expect.stringContaining('1'),
    })
    expect(device.seqs(conversationId)).toEqual([1])
  })

  test('reply and mentions are in the event', async () => {
    const [user, friend] = world().users('a', 'b')
    const conversation = await user.group([friend])
    const device = await user.connect()
    const first = await user.send(conversation)
    const answer = await device.ask('message.send', {
      conversationId: conversation.conversationId,
      clientMessageId: 'r',
      content: text('x'),
      replyToSeq: first.seq,
      mentions: [friend.id],
    })
    const event = await device.waitForEvent(({ seq }) => seq === answer.seq, 'the reply')
    expect(event).toEqual({
      conversationId: conversation.conversationId,
      seq: 2,
      type: 'MessageSent',
      at: answer.sentAt,
      actor: { userId: user.id },
      position: answer.position,
      head: 2,
      data: { clientMessageId: 'r', ordinal: 2, content: text('x'), replyToSeq: 1, mentions: [friend.id] },
    })
  })

  test('edit, reaction, recall: the seq of the new fact; a second time: unchanged', async () => {
    const [user, friend] = world().users('a', 'b')
    const conversation = await user.group([friend])
    const { conversationId } = conversation
    const { seq } = await user.send(conversation)
    const [device, theirs] = [await user.connect(), await friend.connect()]
    const steps: [string, object][] = [
      ['message.edit', { content: text('new') }],
      ['reaction.add', { emoji: '👍' }],
      ['reaction.remove', { emoji: '👍' }],
      ['message.recall', {}],
    ]
    for (const [index, [type, fields]] of steps.entries()) {
      const answer = await device.ask(type, { conversationId, seq, ...fields })
      expect(answer).toEqual({ type: 'ok', ref: answer.ref, seq: index + 2, position: expect.stringMatching(/./) })
      const again = await device.ask(type, { conversationId, seq, ...fields })
      expect(again).toMatchObject({ seq: index + 2, unchanged: true })
    }
    await theirs.waitForSeq(conversationId, 5)
    expect(theirs.events(conversationId).map(({ type, data }) => [type, data])).toEqual([
      ['MessageEdited', { messageSeq: seq, content: text('new') }],
      ['ReactionAdded', { messageSeq: seq, emoji: '👍' }],
      ['ReactionRemoved', { messageSeq: seq, emoji: '👍' }],
      ['MessageRecalled', { messageSeq: seq }],
    ])
    expect(await device.request('message.edit', { conversationId, seq, content: text('late') })).toMatchObject({ code: 'already_recalled' })
    expect(await theirs.request('message.edit', { conversationId, seq, content: text('mine') })).toMatchObject({ code: 'forbidden' })
  })

  test('a frozen conversation and a block refuse', async () => {
    const [owner, member] = world().users('o', 'm')
    const group = await owner.group([member])
    const direct = await owner.direct(member)
    const device = await member.connect()
    await owner.write('PATCH', `/v1/conversations/${group.conversationId}`, { frozen: true })
    await owner.write('PUT', `/v1/blocks/${member.id}`)
    const send = ({ conversationId }: { conversationId: string }) =>
      device.request('message.send', { conversationId, clientMessageId: unique('m'), content: text('x') })
    expect(await send(group)).toMatchObject({ type: 'error', code: 'conversation_frozen', temporary: false })
    expect(await send(direct)).toMatchObject({ type: 'error', code: 'blocked', temporary: false })
  })
})

describe('events.get', () => {
  test('gives the facts after a seq, to a limit, and the head', async () => {
    const user = world().user()
    const conversation = await user.group()
    const { conversationId } = conversation
    await user.sendMany(conversation, 9)
    const device = await user.connect()
    const seqs = async (fields: object) => {
      const { events, head } = await device.ask('events.get', { conversationId, ...fields })
      return [events!.map(({ seq }) => seq), head]
    }
    const all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    expect(await seqs({})).toEqual([all, 9])
    expect(await seqs({ after: -1 })).toEqual([all, 9])
    expect(await seqs({ after: 3, limit: 2 })).toEqual([[4, 5], 9])
    expect(await seqs({ after: 9 })).toEqual([[], 9])
    expect(await seqs({ after: 2 ** 53 - 1 })).toEqual([[], 9])
  })

  test('has no more of large messages than a frame should, and the rest by and by', async () => {
    const user = world().user()
    const conversation = await user.group()
    const words = 'x'.repeat(20_000)
    await Promise.all(Array.from({ length: 30 }, () => user.send(conversation, words)))
    const device = await user.connect()
    const seqs: number[] = []
    let calls = 0
    while (seqs.length < 31) {
      const { events, head } = await device.ask('events.get', {
        conversationId: conversation.conversationId,
        after: seqs.length - 1,
        limit: 200,
      })
      expect(head).toBe(30)
      expect(events!.length).toBeGreaterThan(0)
      seqs.push(...events!.map(({ seq }) => seq))
      calls += 1
    }
    expect(seqs).toEqual(Array.from({ length: 31 }, (_, n) => n))
    expect(calls).toBeGreaterThan(1)
  })
})

describe('too many frames', () => {
  const limited = useServer({ env: { FRAMES_PER_SECOND: '60' } })

  test('beyond the burst of 300 each is refused with its ref, and not carried out', async () => {
    const user = limited().user()
    const { conversationId } = await user.group()
    const device = await user.connect()
    const answers = await Promise.all(
      Array.from({ length: 500 }, (_, n) =>
        device.request('message.send', { conversationId, clientMessageId: `m${n}`, content: text('x') }),
      ),
    )
    const accepted = answers.filter(({ type }) => type === 'ok')
    const refused = answers.filter(({ type }) => type === 'error')
    expect(accepted.length).toBeGreaterThanOrEqual(299)
    expect(refused.length).toBeGreaterThan(50)
    expect(new Set(refused.map(({ code, temporary }) => `${code} ${temporary}`))).toEqual(new Set(['rate_limited true']))
    const events = await user.events({ conversationId })
    expect(new Set(events.slice(1).map(({ data }) => data.clientMessageId))).toEqual(
      new Set(answers.flatMap(({ type }, n) => (type === 'ok' ? [`m${n}`] : []))),
    )
    expect(events.length).toBe(accepted.length + 1)
  })

  test('a thousand refused ones close with 4408', async () => {
    const device = await limited().user().connect()
    for (let n = 0; n < 1_600; n += 1) device.send({ type: 'ping', ref: n + 10 })
    expect(await device.waitForClose()).toBe(4408)
    expect(device.ofType('error').length).toBeGreaterThanOrEqual(1_000)
  })

  test('60 a second may go on for ever', () => {
    let now = 0
    const rate = new FrameRate(60, () => now)
    const verdicts = new Set<string>()
    for (let frame = 0; frame < 6_000; frame += 1, now = Math.floor(frame / 60) * 1_000) verdicts.add(rate.take())
    expect([...verdicts]).toEqual(['allowed'])
  })

  test('after a pause of 5 s there is a whole burst again, and no more', () => {
    let now = 0
    const rate = new FrameRate(60, () => now)
    const burst = () => Array.from({ length: 400 }, () => rate.take()).filter((verdict) => verdict === 'allowed').length
    expect(burst()).toBe(300)
    now += 1_000
    expect(burst()).toBe(60)
    now += 60_000
    expect(burst()).toBe(300)
  })

  test('1,000 refused within any 10 s are too many, as many over a longer time are not', () => {
    let now = 0
    const rate = new FrameRate(60, () => now)
    for (let n = 0; n < 300; n += 1) rate.take()
    const verdicts: string[] = []
    // 90 a second, of which 30 are refused: 300 within 10 s.
    for (let n = 0; n < 9_000; n += 1, now += 1_000 / 90) verdicts.push(rate.take())
    expect(verdicts).not.toContain('close')
  })

  test('wherever 10 s begin', () => {
    let now = 0
    const rate = new FrameRate(60, () => now)
    const refuse = (count: number) => {
      const verdicts: string[] = []
      while (verdicts.length < count) {
        const verdict = rate.take()
        if (verdict !== 'allowed') verdicts.push(verdict)
      }
      return verdicts
    }
    // One, then 900 just before 10 s are over, and 100 more just after.
    expect(refuse(1)).toEqual(['limited'])
    now = 9_900
    expect(refuse(900)).not.toContain('close')
    now = 10_100
    expect(refuse(100)).not.toContain('close')
    expect(refuse(1)).toEqual(['close'])
  })
})
