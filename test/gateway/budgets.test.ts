import { describe, expect, test } from 'vitest'
import { useServer } from '../support/app-server.js'
import { APP_SECRET, type User } from '../support/world.js'

const UNITS_PER_SECOND = 60
/** The cost of a hello without conversations, and of a query for 500 users. */
const HELLO_UNITS = 5
const PRESENCE_UNITS = 51
/** Over REST also the body beyond its first KiB, and the answer beyond its first 16 KiB, are paid for. */
const PRESENCE_OVER_REST_UNITS = PRESENCE_UNITS + 4
const userIds = Array.from({ length: 500 }, (_, i) => `u${i}`)

/** Until one unit is there again, of a caller who is so many units in debt. */
const msUntilOne = (debt: number) => Math.ceil(((1 + debt) * 1_000) / UNITS_PER_SECOND)

describe('a user who has used all units', () => {
  // The clock of the budgets stands still: nothing comes back.
  const world = useServer({ load: { userUnitsPerSecond: UNITS_PER_SECOND, now: () => 0 } })

  const callRest = (user: User, method: string, path: string, body?: object) =>
    fetch(world().url + path, {
      method,
      headers: { authorization: `Bearer ${user.token}`, ...(body ? { 'content-type': 'application/json' } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })

  /** Over REST twice: the second request is let in by the last units, and leaves a debt. */
  async function giveDebt(user: User): Promise<number> {
    for (let n = 0; n < 2; n += 1) expect((await callRest(user, 'POST', '/v1/presence/query', { userIds })).status).toBe(200)
    return 2 * PRESENCE_OVER_REST_UNITS - UNITS_PER_SECOND
  }

  test('is told so when it asks over a socket who is online, and when to ask again', async () => {
    const [user, other] = [world().user(), world().user()]
    const device = await user.connect()
    expect(await device.request('presence.query', { userIds })).toMatchObject({ type: 'ok' })
    expect(await device.request('presence.query', { userIds })).toMatchObject({ type: 'ok' })
    const ref = device.nextRef()
    device.send({ type: 'presence.query', ref, userIds: ['u1'] })
    expect(await device.answerTo(ref)).toEqual({
      type: 'error',
      ref,
      code: 'rate_limited',
      message: expect.any(String),
      temporary: true,
      retryAfterMs: msUntilOne(HELLO_UNITS + 2 * PRESENCE_UNITS - UNITS_PER_SECOND),
    })
    // What is not weighed goes on, and so does everybody else.
    await device.settled()
    const theirs = await other.connect()
    expect(await theirs.request('presence.query', { userIds })).toMatchObject({ type: 'ok' })
  })

  test('is told so when it says hello, and may say it again on the same socket', async () => {
    const user = world().user()
    const debt = await giveDebt(user)
    const device = await user.open()
    for (let n = 0; n < 2; n += 1) {
      expect(await device.sayHello({ token: user.token })).toEqual({
        type: 'error',
        ref: expect.any(Number),
        code: 'rate_limited',
        message: expect.any(String),
        temporary: true,
        retryAfterMs: msUntilOne(debt),
      })
    }
  })

  test.each([
    ['POST', '/v1/presence/query', { userIds: ['u1'] }],
    ['GET', '/v1/inbox', undefined],
  ])('is told so over REST by %s %s, with Retry-After and what is left', async (method, path, body) => {
    const user = world().user()
    const debt = await giveDebt(user)
    const answer = await callRest(user, method, path, body)
    expect(answer.status).toBe(429)
    expect(await answer.json()).toMatchObject({ code: 'rate_limited', temporary: true })
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'retry-after': String(Math.ceil(msUntilOne(debt) / 1_000)),
      'ratelimit-policy': `"user";q=${UNITS_PER_SECOND};w=1`,
      ratelimit: `"user";r=0;t=${Math.ceil((UNITS_PER_SECOND + debt) / UNITS_PER_SECOND)}`,
    })
  })
})

describe('what is not known before is charged when it is', () => {
  // The clock of the budgets stands still: nothing comes back.
  const world = useServer({
    env: { FRAMES_PER_SECOND: '60', APP_KEYS: `app:${APP_SECRET},registrar:secret-of-the-registrar:users` },
    load: { now: () => 0 },
  })

  /** Reads what a user has left from the header of a request that costs one unit. */
  async function unitsLeft(user: User): Promise<number> {
    const { headers } = await user.call('GET', `/v1/users/${user.id}`)
    return Number(/r=(\d+)/.exec(headers.get('ratelimit') ?? '')![1]) + 1
  }

  /** Measures what some work costs its user. */
  async function costOf(user: User, work: () => Promise<unknown>): Promise<number> {
    const before = await unitsLeft(user)
    await work()
    // The look itself is one.
    return before - 1 - (await unitsLeft(user))
  }

  test('a body that comes in chunks costs what it costs at once', async () => {
    const [one, other] = [world().user(), world().user()]
    const body = JSON.stringify({ userIds: ['u1'] }) + ' '.repeat(50_000)
    const ask = (user: User, payload: string | Blob) =>
      fetch(`${world().url}/v1/presence/query`, {
        method: 'POST',
        headers: { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' },
        body: typeof payload === 'string' ? payload : payload.stream(),
        duplex: 'half',
      })
    for (const written of [body, `${body}}`]) {
      const atOnce = await costOf(one, () => ask(one, written))
      expect(atOnce).toBeGreaterThan(40)
      expect(await costOf(other, () => ask(other, new Blob([written])))).toBe(atOnce)
    }
  })

  test('an app without the scope to act for users spends nothing of theirs', async () => {
    const user = world().user()
    const headers = { 'on-behalf-of': user.id }
    expect(await costOf(user, () => world().call('/v1/unread', { token: 'secret-of-the-registrar', headers }))).toBe(0)
    expect(await costOf(user, () => world().call('/v1/unread', { token: APP_SECRET, headers }))).toBe(1)
  })
})
