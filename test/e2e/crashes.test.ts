import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Scene } from '../support/scene.js'
import { ServerProcess } from '../support/server-process.js'
import { type User, eventually } from '../support/world.js'

/** By hand: E2E_MESSAGES=500. */
const MESSAGES = Number(process.env['E2E_MESSAGES'] ?? 100)
const SENDERS = 20
const CRASHES = 5

let server: ServerProcess
beforeAll(async () => {
  server = await ServerProcess.start()
}, 150_000)
afterEach(() => server.heal(), 150_000)
afterAll(() => server?.end())

const begin = (count: number, sending: { messages: number; atOnce: number }) =>
  Scene.begin({ users: Array.from({ length: count }, () => server.world.user('sender')) as [User, ...User[]], ...sending })

test(`${SENDERS} senders, one conversation, and a server that is killed ${CRASHES} times: nothing is lost, doubled or out of order`, async () => {
  const scene = await begin(SENDERS, { messages: MESSAGES, atOnce: 8 })
  for (let n = 1; n <= CRASHES; n += 1) {
    await eventually(async () => scene.acknowledged >= (SENDERS * MESSAGES * n) / (CRASHES + 1), 'the next part to be sent', 240_000)
    await server.crash()
  }
  await scene.end()
  await scene.judge([server.world])
  // They were hit, and more than once.
  expect(scene.refusals.filter((one) => one === 'no answer').length).toBeGreaterThan(CRASHES)
}, 600_000)

test('a Postgres that is killed, and stopped where it stands, in the middle of traffic: sends are refused for now, nothing is lost, and all goes on by itself', async () => {
  const scene = await begin(6, { messages: 400, atOnce: 1 })
  const part = (share: number) => eventually(async () => scene.acknowledged >= 6 * 400 * share, 'a part to be sent', 240_000)
  await part(0.2)
  const killed = server.postgresPid!
  process.kill(killed, 'SIGKILL')
  await part(0.5)
  expect(server.postgresPid).not.toBe(killed)
  server.signalPostgres('SIGSTOP')
  const refusedBefore = scene.refusals.length
  await eventually(async () => scene.refusals.slice(refusedBefore).some((one) => one !== 'no answer'), 'a refusal', 240_000)
  server.signalPostgres('SIGCONT')
  await scene.end()
  await scene.judge([server.world])
  const told = scene.refusals.filter((one) => one !== 'no answer')
  expect(new Set(told.map(({ code, temporary }) => `${code} ${temporary}`))).toEqual(new Set(['unavailable true']))
  // All the while it was one server.
  expect(await Promise.race([server.exited, Promise.resolve('lives')])).toBe('lives')
}, 600_000)
