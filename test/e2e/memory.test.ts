import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { withinBudget } from '../support/rest.js'
import { ServerProcess } from '../support/server-process.js'
import { type User, unique } from '../support/world.js'

/** A heap in which none of what follows could be held at once. */
const HEAP_MB = 256
/** Of the process with all that is not on that heap: buffers, code, the young generation. */
const RESIDENT_MB_MAX = 700

let server: ServerProcess
beforeAll(async () => {
  server = await ServerProcess.start({ NODE_OPTIONS: `--max-old-space-size=${HEAP_MB} --max-semi-space-size=16` })
}, 150_000)
afterEach(() => server.heal(), 150_000)
afterAll(() => server?.end())

const large = { type: 'custom', data: { big: 'y'.repeat(30_000) } }

async function inTens(count: number, work: (n: number) => Promise<unknown>): Promise<void> {
  for (let n = 0; n < count; n += 10) await Promise.all(Array.from({ length: 10 }, (_, i) => withinBudget(() => work(n + i))))
}

async function residentMb(): Promise<number> {
  const { body } = await server.world.call<{ text: string }>('/metrics')
  return Number(/^process_resident_memory_bytes (.*)$/m.exec(body.text)![1]) / 1e6
}

test('the largest content through every place that holds any: the server outlives it and stays within its memory', async () => {
  const [user, other] = server.world.users('a', 'b')
  const { position } = await user.get<{ position: string }>('/v1/inbox')
  const conversations = [await user.group(), await user.group(), await user.group()]
  for (const conversation of conversations) await inTens(300, () => user.send(conversation, '', { content: large }))
  const [first] = conversations
  const path = `/v1/conversations/${first!.conversationId}`
  const { seq } = await withinBudget(() => user.send(first!))
  await inTens(500, (n) => user.write('PATCH', `${path}/messages/${seq}`, { content: { type: 'custom', data: { ...large.data, n } } }))
  let most = await residentMb()
  const look = async () => (most = Math.max(most, await residentMb()))

  // Answers over HTTP that nobody reads.
  const sockets = Array.from({ length: 60 }, (_, n) => unread(user, conversations[n % 3]!.conversationId))
  for (let n = 0; n < 20; n += 1) await look()
  for (const socket of sockets) socket.destroy()

  // All pages that a burst of frames may ask for, by a device that reads.
  const device = await withinBudget(() => user.connect({ deviceId: unique('d') }))
  const answers = Array.from({ length: 240 }, (_, n) =>
    device.request('events.get', { conversationId: conversations[n % 3]!.conversationId, after: -1, limit: 200 }),
  )
  await look()
  const answered = await Promise.all(answers)
  // Questions beyond the device's budget are refused, and the others are answered.
  expect(answered.every(({ type, code, events }) => (type === 'ok' ? events!.length > 0 : code === 'rate_limited'))).toBe(true)
  expect(answered.some(({ type }) => type === 'ok')).toBe(true)
  await look()

  // Resumes of devices that do not read.
  for (let n = 0; n < 8; n += 1) {
    const slow = await user.open()
    await withinBudget(async () => {
      const answer = await slow.sayHello({ token: user.token, deviceId: `slow${n}`, position })
      if (answer.type === 'error') throw new Error(answer.code)
    })
    slow.pause()
    await look()
  }
  for (let n = 0; n < 20; n += 1) await look()

  // Others are served as before.
  await other.send(await other.group())
  expect(most).toBeLessThan(RESIDENT_MB_MAX)
}, 900_000)

function unread(user: User, conversationId: string) {
  const { hostname, port } = new URL(server.world.url)
  const socket = connect({ host: hostname, port: Number(port) })
  socket.on('error', () => {})
  socket.pause()
  socket.write(
    `GET /v1/conversations/${conversationId}/events?limit=200 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${user.token}\r\n\r\n`,
  )
  return socket
}
