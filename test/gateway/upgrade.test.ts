import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { useServer } from '../support/app-server.js'
import { APP_SECRET } from '../support/world.js'

const world = useServer()

/** What comes back on a connection of its own, which the server closes. */
async function answerTo(bytes: string): Promise<string> {
  const socket = connect(Number(new URL(world().url).port), '127.0.0.1')
  socket.write(bytes)
  let answer = ''
  for await (const chunk of socket) answer += String(chunk)
  return answer
}

const requestOf = (line: string, ...headers: string[]) => [line, 'Host: x', ...headers, '', ''].join('\r\n')
const websocket = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']

test.each([
  ['on another path', requestOf('GET /v1/other HTTP/1.1', ...websocket), 404, 'not_found', ''],
  ['with another method', requestOf('POST /v1/ws HTTP/1.1', ...websocket), 405, 'method_not_allowed', 'Allow: GET'],
  [
    'of another version',
    requestOf('GET /v1/ws HTTP/1.1', ...websocket.with(2, 'Sec-WebSocket-Version: 12')),
    400,
    'invalid_request',
    'Sec-WebSocket-Version: 13',
  ],
  ['without a key', requestOf('GET /v1/ws HTTP/1.1', ...websocket.slice(0, 3)), 400, 'invalid_request', 'Sec-WebSocket-Version: 13'],
])('a handshake %s is refused as over HTTP', async (_what, bytes, status, code, header) => {
  const [head, body] = (await answerTo(bytes)).split('\r\n\r\n') as [string, string]
  expect(head).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
  expect(head).toContain('Content-Type: application/problem+json')
  expect(head).toContain(header)
  expect(JSON.parse(body)).toMatchObject({ type: `/docs/errors#${code}`, status, code, temporary: false })
})

test('whoever was refused and does not close is cut off', async () => {
  const socket = connect({ port: Number(new URL(world().url).port), host: '127.0.0.1', allowHalfOpen: true })
  const isCutOff = new Promise((resolve) => socket.once('error', resolve).once('close', resolve))
  socket.write(requestOf('GET /v1/other HTTP/1.1', ...websocket))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  expect(String(answer)).toMatch(/^HTTP\/1\.1 404 /)
  // A server that still has the connection takes whatever comes.
  const writing = setInterval(() => socket.write('x'), 50)
  await isCutOff
  clearInterval(writing)
})

test('without a handshake there is no WebSocket, and what breaks off harms nobody', async () => {
  expect((await world().call('/v1/ws')).status).toBe(404)
  const socket = connect(Number(new URL(world().url).port), '127.0.0.1')
  socket.write(requestOf('GET /v1/ws HTTP/1.1', ...websocket))
  socket.destroy()
  await world().user().connect()
})

test('a request that offers another protocol is served without it, again and again on one connection, its body too', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const body = JSON.stringify({ userId: 'alice' })
  const answers = [
    await offering(agent, 'GET', '/health/live'),
    await offering(agent, 'POST', '/v1/tokens', body),
    await offering(agent, 'GET', '/v1/ws'),
    await offering(agent, 'GET', '/health/live'),
  ]
  expect(answers.map(({ status }) => status)).toEqual([200, 201, 404, 200])
  expect(new Set(answers.map(({ port }) => port)).size).toBe(1)
  agent.destroy()
})

/** As Java's HttpClient and `curl --http2` do. */
async function offering(agent: Agent, method: string, path: string, body?: string): Promise<{ status: number; port: number }> {
  const headers = {
    Connection: 'Upgrade, HTTP2-Settings',
    Upgrade: 'h2c',
    'HTTP2-Settings': 'AAMAAABkAAQCAAAAAAIAAAAA',
    ...(body === undefined
      ? {}
      : { Authorization: `Bearer ${APP_SECRET}`, 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }),
  }
  const asked = request(world().url + path, { agent, method, headers })
  asked.end(body)
  const [response] = (await once(asked, 'response')) as [IncomingMessage]
  const port = response.socket.localPort!
  for await (const _ of response);
  return { status: response.statusCode!, port }
}
