import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { issueToken } from '../../src/auth/tokens.js'
import { userStream } from '../../src/domain/ids.js'
import {
  JWT_SECRET,
  type TestApp,
  type TestCaller,
  callerWith,
  groupOf,
  say,
  secretOf,
  startTestApp,
  unique,
  userOf,
} from '../support/app.js'

let app: TestApp
let full: TestCaller
let registrar: TestCaller
let bot: TestCaller
let auditor: TestCaller

beforeAll(async () => {
  app = await startTestApp()
  ;[full, registrar, bot, auditor] = [secretOf.full, secretOf.users, secretOf.act, secretOf.audit].map((secret) =>
    callerWith(app, secret),
  ) as [TestCaller, TestCaller, TestCaller, TestCaller]
})
afterAll(() => app?.stop())

const hello = { clientMessageId: 'hello', content: { type: 'text', text: 'hello' } }

describe('an app that acts for a user', () => {
  test('is named beside the user in what it does', async () => {
    const owner = unique('owner')
    const acting = bot.onBehalfOf(owner)
    const { body: group } = await acting.post('/v1/conversations', { type: 'group', memberIds: [] })
    expect(group).toMatchObject({ createdBy: owner, role: 'owner' })
    await acting.post(`/v1/conversations/${group.conversationId}/messages`, hello, { 'x-request-id': 'trace-1' })
    const { items } = (await acting.get(`/v1/conversations/${group.conversationId}/events`)).body
    expect(items.map(({ actor }: { actor: object }) => actor)).toEqual([
      { userId: owner, app: 'bot' },
      { userId: owner, app: 'bot' },
    ])
    const [, sent] = (await app.store.readStream(`conversation-${group.conversationId}`, { limit: 2 })).events
    expect(sent!.metadata).toMatchObject({ actor: { userId: owner, app: 'bot' }, correlationId: 'trace-1' })
  })

  test('has the rights of that user', async () => {
    const owner = await userOf(app)
    const group = await groupOf(owner)
    expect((await bot.onBehalfOf(unique('stranger')).get(`/v1/conversations/${group}`)).body.code).toBe('not_found')
    expect((await bot.onBehalfOf(owner.id).get(`/v1/conversations/${group}`)).body.role).toBe('owner')
  })

  test('must name the user, and a valid one', async () => {
    for (const path of ['/v1/inbox', '/v1/conversations/any', '/v1/contacts']) {
      const { body } = await bot.get(path)
      expect(body).toMatchObject({ code: 'invalid_request', errors: [{ field: 'On-Behalf-Of' }] })
    }
    for (const wrong of ['', 'a b', 'a,b', '-a', 'x'.repeat(65)]) {
      expect((await bot.onBehalfOf(wrong).get('/v1/inbox')).body, wrong).toMatchObject({
        code: 'invalid_request',
        errors: [{ field: 'On-Behalf-Of' }],
      })
    }
  })

  test('needs the scope', async () => {
    for (const other of [registrar, auditor]) {
      expect((await other.onBehalfOf('alice').get('/v1/inbox')).body.code).toBe('forbidden')
      expect((await other.get('/v1/inbox')).body.code).toBe('forbidden')
    }
  })

  test('a user names nobody, not even itself', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    const calls = ['/v1/inbox', `/v1/conversations/${group}`, `/v1/users/${user.id}`]
    for (const path of calls)
      for (const named of [user.id, 'bob']) {
        expect((await user.onBehalfOf(named).get(path)).body, path).toMatchObject({
          code: 'invalid_request',
          errors: [{ field: 'On-Behalf-Of' }],
        })
      }
  })
})

describe('an app that audits', () => {
  test('reads a conversation without being a member', async () => {
    const owner = await userOf(app)
    const group = await groupOf(owner)
    const { seq, position } = await say(owner, group, 'for the record')
    expect((await auditor.get(`/v1/conversations/${group}`)).body).toMatchObject({ conversationId: group, role: null })
    for (const path of ['/members', '/messages', `/messages/${seq}`, '/events', '/receipts']) {
      expect((await auditor.get(`/v1/conversations/${group}${path}?minPosition=${position}`)).status, path).toBe(200)
    }
    expect((await auditor.get('/v1/conversations/g-nowhere')).body.code).toBe('not_found')
  })

  test('writes nothing', async () => {
    const owner = await userOf(app)
    const group = `/v1/conversations/${await groupOf(owner)}`
    const writes = [
      auditor.post(`${group}/messages`, hello),
      auditor.patch(group, { name: 'x' }),
      auditor.post(`${group}/join`),
      auditor.post(`${group}/read`, { seq: 0 }),
      auditor.del(`${group}/members/${owner.id}`),
      auditor.post('/v1/conversations', { type: 'group', memberIds: [] }),
      auditor.post('/v1/tokens', { userId: 'a' }),
    ]
    for (const answer of await Promise.all(writes)) expect(answer.body.code).toBe('forbidden')
    expect((await owner.get(group)).body.head).toBe(0)
  })

  test('reads as the user whom it names, where it may act too', async () => {
    const owner = await userOf(app)
    const group = await groupOf(owner)
    expect((await full.get(`/v1/conversations/${group}`)).body.role).toBe(null)
    expect((await full.onBehalfOf(owner.id).get(`/v1/conversations/${group}`)).body.role).toBe('owner')
    expect((await full.onBehalfOf('stranger').get(`/v1/conversations/${group}`)).body.code).toBe('not_found')
  })
})

describe('an app that registers users', () => {
  test('sets and reads profiles, and issues tokens', async () => {
    const id = unique('new')
    const { status, body } = await registrar.put(`/v1/users/${id}`, { name: 'New' })
    expect([status, body.name]).toEqual([200, 'New'])
    expect((await registrar.get(`/v1/users/${id}?minPosition=${body.position}`)).body.name).toBe('New')
    const {
      status: issued,
      body: { token },
    } = await registrar.post('/v1/tokens', { userId: id })
    expect(issued).toBe(201)
    expect((await callerWith(app, token).get('/v1/inbox')).status).toBe(200)
    const [event] = (await app.store.readStream(`user-${id}`, { limit: 1 })).events
    expect(event!.metadata.actor).toEqual({ app: 'registrar' })
  })

  test('needs the scope', async () => {
    for (const other of [bot, auditor]) {
      expect((await other.put('/v1/users/somebody', { name: 'x' })).body.code).toBe('forbidden')
      expect((await other.get('/v1/users/somebody')).body.code).toBe('forbidden')
      expect((await other.post('/v1/tokens', { userId: 'somebody' })).body.code).toBe('forbidden')
    }
  })

  test('a user issues no tokens and writes no profile but its own', async () => {
    const user = await userOf(app)
    expect((await user.post('/v1/tokens', { userId: user.id })).body.code).toBe('forbidden')
    expect((await user.put('/v1/users/somebody', { name: 'x' })).body.code).toBe('forbidden')
    expect((await user.put(`/v1/users/${user.id}`, { name: 'Me' })).status).toBe(200)
    expect((await bot.onBehalfOf(user.id).put(`/v1/users/${user.id}`, { name: 'Bot' })).status).toBe(200)
    expect((await bot.onBehalfOf(user.id).put('/v1/users/somebody', { name: 'Bot' })).body.code).toBe('forbidden')
  })
})

describe('what is looked at first', () => {
  test('who calls, then what it asks, then whether it may', async () => {
    expect((await callerWith(app, 'wrong').post('/v1/tokens', 'no json')).body.code).toBe('unauthenticated')
    expect((await auditor.post('/v1/tokens', {})).body.code).toBe('invalid_request')
    expect((await auditor.post('/v1/tokens', { userId: 'a' })).body.code).toBe('forbidden')
  })
})

describe('a device', () => {
  const tokenOf = async (userId: string, deviceId?: string) =>
    callerWith(app, (await full.post('/v1/tokens', { userId, deviceId })).body.token, userId)
  const listed = async (caller: TestCaller) =>
    ((await caller.get('/v1/devices')).body.items as { deviceId: string }[]).map(({ deviceId }) => deviceId)

  test('is known as soon as its token is used, and that is written once', async () => {
    const laptop = await userOf(app, 'alice', 'laptop')
    for (let use = 0; use < 5; use += 1) await laptop.get('/v1/inbox')
    await vi.waitFor(async () => expect(await listed(laptop)).toEqual(['laptop']), { timeout: 5_000 })
    expect((await app.store.readStream(userStream(laptop.id), { limit: 10 })).events.map(({ type }) => type)).toEqual(['DeviceSeen'])
  })

  test('that was deleted is refused with the tokens of before, and accepted with a new one at once', async () => {
    const phone = await userOf(app, 'alice', 'phone')
    const laptop = await tokenOf(phone.id, 'laptop')
    await phone.get('/v1/inbox')
    const revoked = await laptop.del('/v1/devices/phone')
    expect([revoked.status, typeof revoked.body.position]).toEqual([200, 'string'])
    const again = await tokenOf(phone.id, 'phone')
    expect((await phone.get('/v1/inbox')).body.code).toBe('unauthenticated')
    await vi.waitFor(async () => expect(await listed(laptop)).not.toContain('phone'), { timeout: 5_000 })
    expect((await again.get('/v1/inbox')).status).toBe(200)
    // The second time as well.
    expect((await laptop.del('/v1/devices/phone')).status).toBe(200)
    expect((await again.get('/v1/inbox')).body.code).toBe('unauthenticated')
    expect((await (await tokenOf(phone.id)).get('/v1/inbox')).status).toBe(200)
  })

  test('is deleted also where it was never seen; twice is unchanged', async () => {
    const user = await userOf(app)
    const early = await userOf(app, 'x', 'lost')
    // No request waits until its device is noted, and a position is that of the user's last event.
    await vi.waitFor(async () => expect(await listed(early)).toEqual(['lost']), { timeout: 5_000 })
    const first = await early.del('/v1/devices/other')
    expect([first.status, first.body.unchanged]).toEqual([200, undefined])
    expect((await early.del('/v1/devices/other')).body).toEqual({ position: first.body.position, unchanged: true })
    expect((await user.del('/v1/devices/a b')).body.code).toBe('invalid_request')
  })

  test('is refused with a token that its issuer dated ahead, once it was shown', async () => {
    const owner = await userOf(app)
    const dated = (ms: number) =>
      issueToken(JWT_SECRET, { userId: owner.id, deviceId: 'phone', ttlSeconds: 600 }, { issuedAt: Date.now() + ms })
    const ahead = callerWith(app, (await dated(20_000)).token)
    expect((await ahead.get('/v1/inbox')).status).toBe(200)
    expect((await owner.del('/v1/devices/phone')).status).toBe(200)
    expect((await ahead.get('/v1/inbox')).body.code).toBe('unauthenticated')
    expect((await callerWith(app, (await dated(30_000)).token).get('/v1/inbox')).status).toBe(200)
    expect((await (await tokenOf(owner.id, 'phone')).get('/v1/inbox')).status).toBe(200)
  })
})
