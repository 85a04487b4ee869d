import { describe, expect, test, vi } from 'vitest'
import { useServer } from '../support/app-server.js'
import { APP_SECRET, sign, text } from '../support/world.js'

const world = useServer()

test('hello is answered with who and where one is', async () => {
  const user = world().user()
  const device = await user.open()
  const answer = await device.sayHello({ token: user.token, deviceId: 'phone' })
  expect(answer).toEqual({
    type: 'ok',
    ref: 1,
    sessionId: expect.any(String),
    userId: user.id,
    deviceId: 'phone',
    position: expect.stringMatching(/./),
    recovered: true,
    heartbeatMs: 30_000,
  })
})

test('without a name the device gets one, a new one each time', async () => {
  const user = world().user()
  const [one, other] = [await user.connect(), await user.connect()]
  expect(one.hello!.deviceId).toMatch(/./)
  expect(other.hello!.deviceId).not.toBe(one.hello!.deviceId)
})

test("the token's device is the device", async () => {
  const user = world().user()
  const token = sign({ sub: user.id, deviceId: 'tablet' })
  expect((await user.connect({ token })).hello!.deviceId).toBe('tablet')
  expect((await user.connect({ token, deviceId: 'tablet' })).hello!.deviceId).toBe('tablet')
})

describe('a hello that would be refused again closes with 4501:', () => {
  const tablet = (sub: string) => sign({ sub, deviceId: 'tablet' })
  test.each<[string, (userId: string) => object]>([
    ["a deviceId that is not the token's", (id) => ({ token: tablet(id), deviceId: 'phone' })],
    ['a deviceId that is none', (id) => ({ token: sign({ sub: id }), deviceId: '-' })],
    ['no token', () => ({})],
    ['an unknown field', (id) => ({ token: sign({ sub: id }), urgent: true })],
    ['acks that are no boolean', (id) => ({ token: sign({ sub: id }), acks: 'yes' })],
  ])('%s', async (_, fields) => {
    const user = world().user()
    const device = await user.open()
    expect(await device.request('hello', fields(user.id))).toMatchObject({ type: 'error', code: 'invalid_request', temporary: false })
    expect(await device.waitForClose()).toBe(4501)
  })
})

test('anything before hello is an error, and the connection stays', async () => {
  const user = world().user()
  const device = await user.open()
  const frames = [
    { type: 'message.send', conversationId: 'g', clientMessageId: 'm', content: text('x') },
    { type: 'read', conversationId: 'g', seq: 0 },
    { type: 'events.get', conversationId: 'g' },
    { type: 'presence.query', userIds: ['bob'] },
    { type: 'presence.subscribe' },
  ]
  for (const { type, ...fields } of frames)
    expect(await device.request(type, fields)).toMatchObject({ type: 'error', code: 'unauthenticated', temporary: false })
  await device.settled()
  expect(await device.sayHello({ token: user.token })).toMatchObject({ type: 'ok' })
})

test('a second hello is an error, and the first one holds', async () => {
  const [user, other] = world().users('a', 'b')
  const device = await user.connect({ deviceId: 'phone' })
  expect(await device.request('hello', { token: other.token })).toMatchObject({ type: 'error', code: 'invalid_request' })
  expect(await device.request('hello', { token: 'nonsense' })).toMatchObject({ type: 'error', code: 'invalid_request' })
  const sent = await user.send(await user.group())
  await device.waitForSeq(sent.conversationId, sent.seq)
})

test('two hellos at once: the first is answered, the second is an error', async () => {
  const user = world().user()
  const device = await user.open()
  const [first, second] = await Promise.all([device.sayHello({ token: user.token }), device.request('hello', { token: user.token })])
  expect([first.type, second.type, second.code]).toEqual(['ok', 'error', 'invalid_request'])
})

test('what is sent right behind hello, without waiting, is carried out in order', async () => {
  const user = world().user()
  const { conversationId } = await user.group()
  const device = await user.open()
  const answers = [
    device.sayHello({ token: user.token }),
    ...['a', 'b', 'c'].map((id) => device.request('message.send', { conversationId, clientMessageId: id, content: text(id) })),
  ]
  const [hello, ...sent] = await Promise.all(answers)
  expect(hello!.type).toBe('ok')
  expect(sent.map(({ seq }) => seq)).toEqual([1, 2, 3])
  expect(device.frames[0]).toBe(hello)
})

describe('a token that is refused', () => {
  const now = () => Math.floor(Date.now() / 1_000)
  const unsigned = (claims: object) => sign({ ...claims }, 'x', { alg: 'none' }).replace(/[^.]*$/, '')

  test.each([
    ['nonsense', () => 'nonsense', 4501],
    ['of another secret', () => sign({ sub: 'mallory' }, 'another-secret-0123456789'), 4501],
    ['of another secret and expired', () => sign({ sub: 'mallory', exp: now() - 60 }, 'another-secret-0123456789'), 4501],
    ['without a signature', () => unsigned({ sub: 'mallory' }), 4501],
    ['without exp', () => sign({ sub: 'mallory', exp: undefined }), 4501],
    ['without sub', () => sign({}), 4501],
    ["an app's secret", () => APP_SECRET, 4501],
    ['expired', () => sign({ sub: 'mallory', exp: now() - 1 }), 4402],
  ])('%s', async (_, token, closeCode) => {
    const device = await world().open()
    expect(await device.sayHello({ token: token() })).toMatchObject({ type: 'error', ref: 1, code: 'unauthenticated', temporary: false })
    expect(await device.waitForClose()).toBe(closeCode)
  })
})

test('a connection ends with its token', async () => {
  const user = world().user()
  const device = await user.connect({ token: sign({ sub: user.id, exp: Math.floor(Date.now() / 1_000) + 4 }) })
  expect(await device.waitForClose()).toBe(4402)
  expect(device.frames.at(-1)).toMatchObject({ type: 'error', code: 'unauthenticated' })
})

describe('a device list', () => {
  const listed = async (user: { get: <Body>(path: string) => Promise<Body> }) =>
    (await user.get<{ items: { deviceId: string }[] }>('/v1/devices')).items.map(({ deviceId }) => deviceId)

  test('has no ids that the server made', async () => {
    const user = world().user()
    await user.connect()
    await user.connect({ deviceId: 'kept' })
    await vi.waitFor(async () => expect(await listed(user)).toEqual(['kept']), { timeout: 5_000 })
  })
})

describe('a revoked device', () => {
  test('is closed at once, and refused with any token issued before; one issued after is taken', async () => {
    const user = world().user()
    const withDevice = sign({ sub: user.id, deviceId: 'lost' })
    const [lost, other] = [await user.connect({ token: withDevice }), await user.connect({ deviceId: 'kept' })]
    await user.write('DELETE', '/v1/devices/lost')
    expect(await lost.waitForClose()).toBe(4503)
    expect(lost.frames.at(-1)).toMatchObject({ type: 'error', code: 'unauthenticated', temporary: false })
    for (const hello of [{ token: withDevice }, { token: user.token, deviceId: 'lost' }]) {
      const device = await user.open()
      expect(await device.sayHello(hello)).toMatchObject({ type: 'error', code: 'unauthenticated' })
      expect(await device.waitForClose()).toBe(4503)
    }
    await other.settled()
    await user.connect({ token: sign({ sub: user.id, deviceId: 'lost' }) })
  })

  test('whose hello is just being answered does not slip through', async () => {
    const user = world().user()
    await user.connect({ deviceId: 'lost' })
    const device = await user.open()
    device.sayHello({ token: user.token, deviceId: 'lost' }).catch(() => {})
    await user.write('DELETE', '/v1/devices/lost')
    expect(await device.waitForClose()).toBe(4503)
  })

  test('is refused with a token without iat for ever', async () => {
    const user = world().user()
    await user.connect({ deviceId: 'lost' })
    await user.write('DELETE', '/v1/devices/lost')
    const device = await user.open()
    await device.sayHello({ token: sign({ sub: user.id, deviceId: 'lost', iat: undefined }) })
    expect(await device.waitForClose()).toBe(4503)
  })
})

describe('the upgrade', () => {
  test.each(['/', '/v1', '/v1/ws/', '/v1/wsx', '/v2/ws'])('is refused at %s', async (path) => {
    await expect(world().open({ path })).rejects.toThrow(/refused 404: .*"code":"not_found"/)
  })

  test('is refused to pages of other origins', async () => {
    await expect(world().open({ headers: { origin: 'https://evil.example' } })).rejects.toThrow(/refused 403: .*"code":"forbidden"/)
  })

  test('is given to pages of this host, and to who is no page', async () => {
    await world().open({ headers: { origin: world().url } })
    await world().open()
  })

  test('takes no token in the URL', async () => {
    const user = world().user()
    const device = await user.open({ path: `/v1/ws?token=${user.token}` })
    expect(await device.request('presence.query', { userIds: [user.id] })).toMatchObject({ type: 'error', code: 'unauthenticated' })
  })
})
