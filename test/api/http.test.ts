import { connect } from 'node:net'
import { Readable } from 'node:stream'
import type { AddressInfo } from 'node:net'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type RefusalCode, Refusal, refusals } from '../../src/domain/errors.js'
import { AppendOutcomeUnknown, StoreUnavailable } from '../../src/domain/event-store.js'
import {
  type Answer,
  type TestApp,
  callerWith,
  directOf,
  groupOf,
  request,
  say,
  secretOf,
  startTestApp,
  unique,
  userOf,
} from '../support/app.js'
import { Load } from '../../src/load/load.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'

let postgres: TestPostgres
let app: TestApp

beforeAll(async () => {
  postgres = await startTestPostgres()
  app = await startTestApp({ postgres, membersMax: 5 })
})
afterAll(async () => {
  await app?.stop()
  await postgres?.stop()
})

/** A well-formed problem+json with this code. */
function refused(answer: Answer, code: RefusalCode, field?: string): void {
  expect(answer.headers['content-type'], answer.text).toMatch(/^application\/problem\+json/)
  const { status, title, temporary } = refusals[code]
  expect(answer.body, answer.text).toMatchObject({
    code,
    status,
    title,
    temporary,
    type: `/docs/errors#${code}`,
    detail: expect.any(String),
  })
  expect(answer.status).toBe(status)
  if (field !== undefined) expect(answer.body.errors, answer.text).toEqual([{ field, message: expect.any(String) }])
}

describe('every code of the table is reached', () => {
  test('invalid_request names the field', async () => {
    const user = await userOf(app)
    refused(await user.post('/v1/conversations', { type: 'group' }), 'invalid_request', 'memberIds')
    refused(await user.post('/v1/conversations', { type: 'group', memberIds: [], surprise: 1 }), 'invalid_request', 'surprise')
    refused(await user.get('/v1/inbox?limit=0'), 'invalid_request', 'limit')
    refused(await user.get('/v1/inbox?limit=201'), 'invalid_request', 'limit')
    refused(await user.get('/v1/inbox?surprise=1'), 'invalid_request', 'surprise')
    const { position } = (await user.post('/v1/conversations', { type: 'group', memberIds: [] })).body
    const ahead = position.replace(/^0/, '9')
    for (const minPosition of ['soon', ahead, position.replace(/\..*/, ''), position.replace(/\..*/, '.AAAAAAAA')])
      for (const read of ['inbox', 'unread', 'conversations/g-none/events'])
        refused(await user.get(`/v1/${read}?minPosition=${minPosition}`), 'invalid_request', 'minPosition')
    refused(await user.get('/v1/inbox?cursor=soon'), 'invalid_request', 'cursor')
  })

  test('invalid_request: a full group, a reply to nothing, reading beyond the head, a 51st reaction', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    const group = await groupOf(owner, member)
    const { seq } = await say(owner, group, 'hello')
    refused(await owner.post(`/v1/conversations/${group}/members`, { userIds: ['a', 'b', 'c', 'd'] }), 'invalid_request', 'userIds')
    refused(
      await owner.post(`/v1/conversations/${group}/messages`, {
        clientMessageId: 'x',
        content: { type: 'text', text: 'x' },
        replyToSeq: 0,
      }),
      'invalid_request',
      'replyToSeq',
    )
    refused(await owner.post(`/v1/conversations/${group}/read`, { seq: 99 }), 'invalid_request', 'seq')
    refused(await owner.get(`/v1/conversations/${group}/receipts?readBy=0`), 'invalid_request', 'readBy')
    refused(await owner.get(`/v1/conversations/${group}/receipts?readBy=${2 ** 31}`), 'invalid_request', 'readBy')
    for (let n = 0; n < 50; n += 1) await owner.put(`/v1/conversations/${group}/messages/${seq}/reactions/r${n}`)
    refused(await member.put(`/v1/conversations/${group}/messages/${seq}/reactions/r50`), 'invalid_request', 'emoji')
  })

  test('unauthenticated', async () => {
    const answer = await request(app.api, 'GET', '/v1/inbox')
    refused(answer, 'unauthenticated')
    expect(answer.headers['www-authenticate']).toBe('Bearer')
    for (const authorization of ['Bearer', 'Bearer ', 'Basic YTpi', 'Bearer a b', 'Bearer ä', 'letmein']) {
      refused(await request(app.api, 'GET', '/v1/inbox', { headers: { authorization } }), 'unauthenticated')
    }
  })

  test('forbidden', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    refused(await member.patch(`/v1/conversations/${await groupOf(owner, member)}`, { name: 'Mine' }), 'forbidden')
  })

  test('blocked', async () => {
    const [one, other] = [await userOf(app), await userOf(app)]
    const direct = await directOf(one, other)
    await other.put(`/v1/blocks/${one.id}`)
    refused(
      await one.post(`/v1/conversations/${direct}/messages`, { clientMessageId: 'x', content: { type: 'text', text: 'x' } }),
      'blocked',
    )
    const stranger = await userOf(app)
    await stranger.put(`/v1/blocks/${one.id}`)
    refused(await one.post('/v1/conversations', { type: 'direct', memberIds: [stranger.id] }), 'blocked')
  })

  test('conversation_frozen', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    const group = await groupOf(owner, member)
    await owner.patch(`/v1/conversations/${group}`, { frozen: true })
    refused(
      await member.post(`/v1/conversations/${group}/messages`, { clientMessageId: 'x', content: { type: 'text', text: 'x' } }),
      'conversation_frozen',
    )
  })

  test('not_found is the same for what is not there and for a stranger', async () => {
    const [owner, stranger] = [await userOf(app), await userOf(app)]
    const group = await groupOf(owner)
    for (const path of ['', '/members', '/messages', '/messages/1', '/events', '/receipts']) {
      const [there, nowhere] = [
        await stranger.get(`/v1/conversations/${group}${path}`),
        await stranger.get(`/v1/conversations/g-nowhere${path}`),
      ]
      refused(there, 'not_found')
      expect(there.text).toBe(nowhere.text)
    }
  })

  test('method_not_allowed says what is', async () => {
    const answer = await (await userOf(app)).put('/v1/inbox')
    refused(answer, 'method_not_allowed')
    expect(answer.headers['allow']).toBe('GET, HEAD, OPTIONS')
    expect((await request(app.api, 'POST', '/v1/conversations/any/messages/7')).headers['allow']).toBe('DELETE, GET, HEAD, OPTIONS, PATCH')
  })

  test('direct_conversation', async () => {
    const [one, other] = [await userOf(app), await userOf(app)]
    refused(await one.post(`/v1/conversations/${await directOf(one, other)}/leave`), 'direct_conversation')
  })

  test('idempotency_conflict names the first seq', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    const send = (text: string) =>
      user.post(`/v1/conversations/${group}/messages`, { clientMessageId: 'same', content: { type: 'text', text } })
    await send('one')
    const answer = await send('two')
    refused(answer, 'idempotency_conflict')
    expect(answer.body.detail).toContain('seq 1')
  })

  test('already_recalled', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    const { seq } = await say(user, group, 'oops')
    await user.del(`/v1/conversations/${group}/messages/${seq}`)
    refused(await user.patch(`/v1/conversations/${group}/messages/${seq}`, { content: { type: 'text', text: 'back' } }), 'already_recalled')
  })

  test('payload_too_large: a body, content and custom data over their bounds in bytes', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    refused(await user.post('/v1/conversations', { type: 'group', memberIds: [], name: 'x'.repeat(300_000) }), 'payload_too_large')
    refused(
      await user.post('/v1/conversations', { type: 'group', memberIds: [], custom: { a: 'x'.repeat(4_096) } }),
      'payload_too_large',
      'custom',
    )
    // Beyond both bounds, in characters and in bytes.
    refused(
      await user.post(`/v1/conversations/${group}/messages`, { clientMessageId: 'x', content: { type: 'text', text: 'x'.repeat(40_000) } }),
      'payload_too_large',
      'content',
    )
    refused(
      await user.post(`/v1/conversations/${group}/messages`, { clientMessageId: 'x', content: { type: 'text', text: 'x'.repeat(20_001) } }),
      'invalid_request',
      'content.text',
    )
    // Short as it is sent, long as it is kept.
    refused(
      await user.put(`/v1/users/${user.id}`, `{"custom":{"a":[${Array(400).fill('1e20').join(',')}]}}`),
      'payload_too_large',
      'custom',
    )
  })

  test('unsupported_media_type', async () => {
    const user = await userOf(app)
    for (const type of ['text/plain', 'application/xml', 'multipart/form-data; boundary=x', 'nonsense']) {
      refused(await user.post('/v1/conversations', 'type=group', { 'content-type': type }), 'unsupported_media_type')
    }
  })

  test('rate_limited holds for a user, also where an app acts for it, and not for others', async () => {
    // The clock stands still: nothing comes back.
    const limited = await startTestApp({ postgres, load: new Load({ userUnitsPerSecond: 3, now: () => 0 }) })
    try {
      const [user, other] = [await userOf(limited), await userOf(limited)]
      const answers = await Promise.all(Array.from({ length: 6 }, () => user.get('/v1/unread')))
      expect(answers.filter(({ status }) => status === 200)).toHaveLength(3)
      expect(answers.filter(({ status }) => status === 429)).toHaveLength(3)
      const late = answers.find(({ status }) => status === 429)!
      refused(late, 'rate_limited')
      expect(late.headers['retry-after']).toBe('1')
      expect((await other.get('/v1/unread')).status).toBe(200)
      const app = callerWith(limited, secretOf.full)
      refused(await app.onBehalfOf(user.id).get('/v1/unread'), 'rate_limited')
      expect((await app.get('/v1/conversations/none')).status).toBe(404)
    } finally {
      await limited.stop()
    }
  })

  test('every answer tells what is left, and a large request leaves a debt', async () => {
    const limited = await startTestApp({ postgres, load: new Load({ now: () => 0 }) })
    try {
      const user = await userOf(limited)
      const small = await user.get('/v1/unread')
      expect(small.headers).toMatchObject({ 'ratelimit-policy': '"user";q=1000;w=1', ratelimit: '"user";r=999;t=1' })
      const memberIds = Array.from({ length: 1_000 }, (_, i) => `m${i}`)
      const large = await user.post('/v1/conversations', { type: 'group', memberIds })
      expect(large.status).toBe(201)
      expect(large.headers).toMatchObject({ ratelimit: expect.stringMatching(/^"user";r=0;t=2$/) })
      refused(await user.get('/v1/unread'), 'rate_limited')
      const app = await callerWith(limited, secretOf.full).get('/v1/conversations/none')
      expect(app.headers).toMatchObject({ 'ratelimit-policy': '"app";q=5000;w=1' })
    } finally {
      await limited.stop()
    }
  })

  test.each([
    ['the log can not be reached', () => new StoreUnavailable('connect ECONNREFUSED')],
    ['the outcome is not known', () => new AppendOutcomeUnknown('timeout')],
    ['a part says so', () => new Refusal('unavailable', 'Later.')],
  ])('unavailable when %s', async (_why, make) => {
    const broken = await startTestApp({
      postgres,
      presence: {
        query: async () => {
          throw make()
        },
        ofDevices: async () => [],
      },
    })
    try {
      const answer = await (await userOf(broken)).post('/v1/presence/query', { userIds: ['bob'] })
      refused(answer, 'unavailable')
      expect(answer.headers['retry-after']).toBe('1')
      expect(answer.text).not.toContain('ECONNREFUSED')
    } finally {
      await broken.stop()
    }
  })

  test('a body that takes its time is no reason for unavailable', async () => {
    const user = await userOf(app)
    const { now } = performance
    let laterMs = 0
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now.call(performance) + laterMs)
    async function* slowly() {
      yield '{"type":"group",'
      laterMs = 25_000
      yield '"memberIds":[]}'
    }
    try {
      const headers = { authorization: `Bearer ${user.token}`, 'content-type': 'application/json' }
      const { statusCode } = await app.api.inject({ method: 'POST', url: '/v1/conversations', headers, payload: Readable.from(slowly()) })
      expect(statusCode).toBe(201)
    } finally {
      clock.mockRestore()
    }
  })

  test('unavailable when the read models are not there in time', async () => {
    const user = await userOf(app)
    const held = new pg.Client({ connectionString: app.connectionString })
    await held.connect()
    try {
      await held.query('BEGIN; SELECT FROM read.checkpoints FOR UPDATE')
      const { position } = (await user.post('/v1/conversations', { type: 'group', memberIds: [] })).body
      refused(await user.get(`/v1/unread?minPosition=${position}`), 'unavailable')
    } finally {
      await held.end()
    }
  })

  test('internal shows nothing of the bug, and logs it', async () => {
    const broken = await startTestApp({
      postgres,
      presence: {
        query: async () => {
          throw new TypeError('secretVariable is not defined')
        },
        ofDevices: async () => [],
      },
    })
    try {
      const answer = await (await userOf(broken)).post('/v1/presence/query', { userIds: ['bob'] }, { 'x-request-id': 'find-me' })
      refused(answer, 'internal')
      expect(answer.text).not.toContain('secretVariable')
      expect(broken.errors).toMatchObject([{ details: { err: { message: 'secretVariable is not defined' }, correlationId: 'find-me' } }])
    } finally {
      await broken.stop()
    }
  })
})

describe('requests', () => {
  test.each(['{"type":', 'nonsense', '{"a":1}}', '\u0000', '[]', '"text"', '1', 'null', 'true'])(
    'a body %j is invalid_request',
    async (body) => {
      refused(await (await userOf(app)).post('/v1/conversations', body), 'invalid_request')
    },
  )

  test('a body that is missing or empty is invalid_request where one is needed, and no matter where none is', async () => {
    const user = await userOf(app)
    refused(await user.post('/v1/conversations'), 'invalid_request')
    refused(await user.post('/v1/conversations', ''), 'invalid_request')
    const group = await groupOf(user)
    for (const body of [undefined, '', {}]) expect((await user.post(`/v1/conversations/${group}/join`, body)).status).toBe(200)
    refused(await user.post(`/v1/conversations/${group}/join`, { userId: 'bob' }), 'invalid_request', 'body')
  })

  test('custom data may have a constructor, but no prototype', async () => {
    const user = await userOf(app)
    const custom = { constructor: { prototype: 1 }, toString: 'x', hasOwnProperty: null }
    expect((await user.put(`/v1/users/${user.id}`, { custom })).body.custom).toEqual(custom)
    for (const [body, field] of [
      ['{"custom":{"__proto__":{"admin":true}}}', 'custom.__proto__'],
      ['{"custom":{"a":{"\\u005f_proto__":1}}}', 'custom.a.__proto__'],
      ['{"__proto__":{}}', '__proto__'],
    ] as const)
      refused(await user.put(`/v1/users/${user.id}`, body), 'invalid_request', field)
  })

  test('a body that is no JSON is named as such, and one that is not read is refused', async () => {
    const user = await userOf(app)
    for (const body of ['{', '{"name":"x"}}', '[1,]', 'NaN'])
      refused(await user.put(`/v1/users/${user.id}`, body), 'invalid_request', 'body')
    for (const body of ['{"x":1}', '"x"', '[]', '7', '["\\u0000"]'])
      refused(await user.put('/v1/contacts/bob', body), 'invalid_request', 'body')
    expect((await user.put('/v1/contacts/bob', '{}')).status).toBe(200)
    refused(await user.post('/v1/inbox', '{'), 'method_not_allowed')
    refused(await user.post('/v1/nowhere', '{'), 'not_found')
  })

  test('a number in a path or query is written in digits, and nothing else is read as one', async () => {
    const user = await userOf(app)
    for (const limit of ['Infinity', '1e1', '1e400', '0x10', '%201', '+1', '1.0', ''])
      refused(await user.get(`/v1/inbox?limit=${limit}`), 'invalid_request', 'limit')
    for (const hidden of ['1', 'TRUE', '', 'yes']) refused(await user.get(`/v1/inbox?hidden=${hidden}`), 'invalid_request', 'hidden')
    expect((await user.get('/v1/inbox?limit=10&hidden=true')).status).toBe(200)
    const path = `/v1/conversations/${await groupOf(user)}`
    for (const after of ['Infinity', '-1e0', '0x1']) refused(await user.get(`${path}/events?after=${after}`), 'invalid_request', 'after')
    expect((await user.get(`${path}/events?after=-1`)).body.items).toHaveLength(1)
    for (const seq of ['Infinity', '1e400', '0x1', '1%20']) refused(await user.get(`${path}/messages/${seq}`), 'invalid_request', 'seq')
    expect(app.errors).toEqual([])
  })

  test('an id that no conversation can have is one that is not there', async () => {
    const user = await userOf(app)
    for (const id of ['a.b', '%C3%A4%20b', 'a%2Fb', '__proto__', 'x'.repeat(80)]) {
      refused(await user.get(`/v1/conversations/${id}/messages`), 'not_found')
      refused(await user.post(`/v1/conversations/${id}/read`, { seq: 0 }), 'not_found')
    }
    for (const id of ['x'.repeat(81), 'a%00b']) refused(await user.get(`/v1/conversations/${id}`), 'invalid_request', 'conversationId')
    expect(app.errors).toEqual([])
  })

  test('NUL, lone surrogates, endless nesting and endless numbers are refused', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    const send = (data: string) =>
      user.post(`/v1/conversations/${group}/messages`, `{"clientMessageId":"x","content":{"type":"custom","data":${data}}}`)
    for (const data of ['{"a":"\\u0000"}', '{"\\u0000":1}', '{"a":"\\ud800"}', '{"a":1e999}', `{"a":${'['.repeat(120)}${']'.repeat(120)}}`])
      refused(await send(data), 'invalid_request')
    refused(await send(`{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`), 'invalid_request')
    expect((await send(`{"a":${'['.repeat(50)}${']'.repeat(50)}}`)).status).toBe(201)
  })

  test('odd paths are refused and never break anything', async () => {
    const user = await userOf(app)
    const odd = ['%', '%00', '%FF%FE', '%E0%A4%A', 'a%20b', '..%2F..', 'x'.repeat(81), 'x'.repeat(5_000), "'%20OR%201=1"]
    for (const id of odd) {
      for (const path of [`/v1/conversations/${id}`, `/v1/users/${id}`, `/v1/conversations/${id}/messages/1`, `/v1/devices/${id}`]) {
        const answer = await user.get(path)
        expect(['invalid_request', 'not_found', 'method_not_allowed'], `${path} → ${answer.text}`).toContain(answer.body?.code)
      }
    }
    for (const seq of ['-1', '1.5', 'abc', '9'.repeat(30), 'NaN', 'null', 'true'])
      refused(await user.get(`/v1/conversations/any/messages/${seq}`), 'invalid_request', 'seq')
    expect(app.errors).toEqual([])
  })

  test('an id of the request is kept where it is sane, and answered', async () => {
    const user = await userOf(app)
    expect((await user.get('/v1/inbox', { 'x-request-id': 'abc-1' })).headers['x-request-id']).toBe('abc-1')
    for (const given of ['x'.repeat(129), 'a b', 'a"b']) {
      expect((await user.get('/v1/inbox', { 'x-request-id': given })).headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
    }
  })

  test('HEAD and OPTIONS are answered', async () => {
    const user = await userOf(app)
    const head = await request(app.api, 'HEAD', '/v1/inbox', { headers: { authorization: `Bearer ${user.token}` } })
    expect([head.status, head.text]).toEqual([200, ''])
    const options = await request(app.api, 'OPTIONS', '/v1/inbox')
    expect([options.status, options.headers['allow']]).toEqual([204, 'GET, HEAD, OPTIONS'])
    refused(await request(app.api, 'OPTIONS', '/v1/nowhere'), 'not_found')
  })

  test('what is no HTTP, and headers without end, are answered with a problem', async () => {
    const url = await app.api.listen({ host: '127.0.0.1', port: 0 })
    const { port } = new URL(url)
    const ask = (text: string) =>
      new Promise<string>((resolve, reject) => {
        let came = ''
        const socket = connect(Number(port), '127.0.0.1', () => void socket.write(text))
        socket
          .on('data', (data) => {
            came += data.toString()
          })
          .on('close', () => resolve(came))
          .on('error', reject)
      })
    for (const text of ['NONSENSE\r\n\r\n', `GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`]) {
      const answer = await ask(text)
      expect(answer).toMatch(/^HTTP\/1\.1 400 /)
      expect(JSON.parse(answer.split('\r\n\r\n')[1]!)).toMatchObject({ code: 'invalid_request', status: 400 })
    }
    expect((app.api.server.address() as AddressInfo).address).toBe('127.0.0.1')
  })
})

describe('the pages around the API', () => {
  test('the start page says what to try next', async () => {
    const { status, headers, text } = await request(app.api, 'GET', '/')
    expect([status, headers['content-type']]).toEqual([200, 'text/html; charset=utf-8'])
    for (const what of ['/docs', '/openapi.json', '/health/ready', '/metrics', '/v1/tokens', 'APP_KEYS']) expect(text).toContain(what)
  })

  test('the start page tells where the secrets are that it has made', async () => {
    const kept = await startTestApp({ postgres, secrets: { jwtSecret: 'x', keptIn: '/srv/<data>/secrets.json' } })
    const { text } = await request(kept.api, 'GET', '/')
    await kept.stop()
    expect(text).toContain('/srv/&#60;data&#62;/secrets.json')
  })

  test('pages load nothing from another host', async () => {
    for (const path of ['/', '/docs', '/docs/errors']) {
      const { headers, text } = await request(app.api, 'GET', path)
      expect(text).not.toMatch(/(src|href)=["'](https?:)?\/\//i)
      expect(headers['content-security-policy']).toMatch(/default-src 'none'/)
      expect(headers['content-security-policy']).not.toMatch(/https?:|\*/)
    }
    const { text } = await request(app.api, 'GET', '/docs/start.js')
    expect(text).toContain('"withDefaultFonts":false')
    expect(text).toContain('"telemetry":false')
    expect(text).toContain('"agent":{"disabled":true}')
    expect((await request(app.api, 'GET', '/docs/viewer.js')).text.length).toBeGreaterThan(1_000_000)
  })

  test('links lead to this server whatever prefix a proxy has taken away', async () => {
    for (const page of ['/', '/docs', '/docs/websocket', '/docs/errors']) {
      const { text } = await request(app.api, 'GET', page)
      for (const [, link] of text.matchAll(/(?:href|src)="([^"]+)"/g)) {
        const { pathname } = new URL(link!, `https://example.com/chat${page}`)
        expect(pathname, `${page} has ${link}`).toMatch(/^\/chat\//)
        // What is not served here is the document of a gateway that this app lacks.
        const { status } = await request(app.api, 'GET', pathname.slice('/chat'.length))
        expect([200, ...(link!.includes('websocket') ? [404] : [])], `${page} has ${link}`).toContain(status)
      }
    }
    const { text } = await request(app.api, 'GET', '/docs/start.js')
    expect(text).toContain("new URL('openapi.json', document.baseURI)")
  })

  test('PUBLIC_URL is named where an address is needed; without it the one of the request', async () => {
    const publicUrl = 'https://example.com/chat'
    const proxied = await startTestApp({ postgres, config: { allowedOrigins: [], publicUrl } })
    try {
      expect((await request(proxied.api, 'GET', '/')).text).toContain(`curl ${publicUrl}/v1/conversations`)
      expect((await request(proxied.api, 'GET', '/openapi.json')).body.servers).toEqual([{ url: publicUrl }])
      expect((await request(proxied.api, 'GET', '/v1/inbox')).body.type).toBe(`${publicUrl}/docs/errors#unauthenticated`)
    } finally {
      await proxied.stop()
    }
    const headers = { host: 'chat.example:8080' }
    expect((await request(app.api, 'GET', '/', { headers })).text).toContain('curl http://chat.example:8080/v1/conversations')
    expect((await request(app.api, 'GET', '/openapi.json', { headers })).body.servers).toEqual([{ url: 'http://chat.example:8080' }])
    expect((await request(app.api, 'GET', '/v1/inbox')).body.type).toBe('/docs/errors#unauthenticated')
  })

  test('the page of errors has every code', async () => {
    const { text } = await request(app.api, 'GET', '/docs/errors')
    for (const code of Object.keys(refusals)) expect(text).toContain(`id="${code}"`)
  })

  test('health tells a fault, one that throws and one that never answers', async () => {
    expect((await request(app.api, 'GET', '/health/live')).body).toEqual({ status: 'ok' })
    expect((await request(app.api, 'GET', '/health/ready')).body).toEqual({ status: 'ok' })
    const faults = [
      async () => 'The log is away.',
      async () => {
        throw new Error('boom')
      },
      () => new Promise<undefined>(() => {}),
    ]
    for (const findFault of faults) {
      const ill = await startTestApp({ postgres, health: { findFault } })
      try {
        refused(await request(ill.api, 'GET', '/health/ready'), 'unavailable')
        expect((await request(ill.api, 'GET', '/health/live')).status).toBe(200)
      } finally {
        await ill.stop()
      }
    }
  })

  test('metrics count requests by pattern, not by path', async () => {
    const user = await userOf(app)
    const paths = [unique('lost'), unique('lost')]
    for (const path of paths) await user.get(`/v1/conversations/${path}`)
    for (const path of paths) await user.get(`/${path}`)
    const { text, headers } = await request(app.api, 'GET', '/metrics')
    expect(headers['content-type']).toMatch(/^text\/plain/)
    expect(text).toMatch(
      /convolog_http_request_duration_seconds_count\{method="GET",route="\/v1\/conversations\/:conversationId",status="404"\} \d+/,
    )
    expect(text).toMatch(/route="none",status="404"/)
    for (const path of paths) expect(text).not.toContain(path)
  })

  test('answers carry what keeps browsers careful', async () => {
    const { headers } = await (await userOf(app)).get('/v1/inbox')
    expect(headers).toMatchObject({
      'x-content-type-options': 'nosniff',
      'content-security-policy': expect.stringContaining("default-src 'none'"),
    })
    expect(headers['x-powered-by']).toBeUndefined()
    expect(headers['access-control-allow-origin']).toBeUndefined()
  })

  test('browsers of allowed origins may call, and no others', async () => {
    const open = await startTestApp({ postgres, config: { allowedOrigins: ['https://app.example'] } })
    try {
      const preflight = (origin: string) =>
        request(open.api, 'OPTIONS', '/v1/conversations', {
          headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
        })
      const allowed = await preflight('https://app.example')
      expect(allowed.headers['access-control-allow-origin']).toBe('https://app.example')
      expect(allowed.headers['access-control-allow-headers']).toContain('authorization')
      expect((await preflight('https://evil.example')).headers['access-control-allow-origin']).not.toBe('https://evil.example')
      expect((await (await userOf(open)).get('/v1/inbox', { origin: 'https://app.example' })).headers['access-control-allow-origin']).toBe(
        'https://app.example',
      )
    } finally {
      await open.stop()
    }
  })
})
