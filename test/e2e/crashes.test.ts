import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Event } from '../support/device.js'
import { ForgetfulDevice } from '../support/forgetful-device.js'
import { type Sender, RestSender, SocketSender } from '../support/senders.js'
import { ServerProcess } from '../support/server-process.js'
import { type Conversation, type User, eventually } from '../support/world.js'

/** By hand: E2E_MESSAGES=500. */
const MESSAGES = Number(process.env['E2E_MESSAGES'] ?? 100)
const SENDERS = 20
const CRASHES = 5

let server: ServerProcess
beforeAll(async () => {
  server = await ServerProcess.start()
}, 150_000)
afterAll(() => server?.end())

interface Scene {
  conversation: Conversation
  /** Each on a device of its own, beside what it sends with. */
  devices: ForgetfulDevice[]
  senders: Sender[]
  acknowledged(): number
  /** All have sent all, and every device has it. */
  end(): Promise<void>
}

/** Half of them over REST, half over WebSocket, all into one conversation, and all of them listen. */
async function begin(options: { senders: number; messages: number; atOnce: number }): Promise<Scene> {
  const users = Array.from({ length: options.senders }, (_, n) => server.world.user(n % 2 === 0 ? 'rest' : 'socket')) as [User, ...User[]]
  const conversation = await users[0].group(users.slice(1))
  const { conversationId } = conversation
  const senders = users.map((user, n) =>
    n % 2 === 0
      ? new RestSender(user, conversationId, options.messages)
      : new SocketSender(user, conversationId, options.messages, options.atOnce),
  )
  const devices = users.map((user) => new ForgetfulDevice(user))
  for (const device of devices) await device.connect()
  const resting = new AbortController()
  const listening = devices.map((device) => device.stayConnected(resting.signal))
  const sending = senders.map((sender) => sender.run())
  return {
    conversation,
    devices,
    senders,
    acknowledged: () => senders.reduce((sum, sender) => sum + sender.acknowledged.size, 0),
    end: async () => {
      await Promise.all(sending)
      const last = options.senders * options.messages
      for (const device of devices)
        await eventually(async () => device.events(conversationId).has(last), `all to be on the device of ${device.user.id}`, 30_000)
      resting.abort()
      await Promise.all(listening)
    },
  }
}

/** One dense sequence, each message once and in its sender's order, everything acknowledged at its place, and every device has the very same. */
async function judge({ conversation, devices, senders }: Scene): Promise<void> {
  const events = await senders[0]!.user.events(conversation)
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, n) => n))
  const messages = events.slice(1)
  expect(messages.map(({ data }) => data.ordinal)).toEqual(messages.map((_, n) => n + 1))
  for (const { user, ids, acknowledged } of senders) {
    const own = messages.filter(({ actor }) => actor.userId === user.id)
    expect(own.map(({ data }) => data.clientMessageId)).toEqual(ids)
    expect(Object.fromEntries(acknowledged)).toEqual(Object.fromEntries(own.map(({ data, seq }) => [data.clientMessageId, seq])))
  }
  const withoutHead = ({ head: _, ...event }: Event) => event
  for (const device of devices) {
    const had = [...device.events(conversation.conversationId).values()].sort((one, other) => one.seq - other.seq).map(withoutHead)
    expect(had).toEqual(messages.map(withoutHead))
    expect(device.notRecovered).toBe(0)
  }
  expect(server.world.violations()).toEqual([])
}

const refusals = (senders: readonly Sender[]) => senders.flatMap(({ refused }) => refused)

test(`${SENDERS} senders, one conversation, and a server that is killed ${CRASHES} times: nothing is lost, doubled or out of order`, async () => {
  const scene = await begin({ senders: SENDERS, messages: MESSAGES, atOnce: 8 })
  for (let n = 1; n <= CRASHES; n += 1) {
    await eventually(async () => scene.acknowledged() >= (SENDERS * MESSAGES * n) / (CRASHES + 1), 'the next part to be sent', 60_000)
    await server.crash()
  }
  await scene.end()
  await judge(scene)
  // They were hit, and more than once.
  expect(refusals(scene.senders).filter((one) => one === 'no answer').length).toBeGreaterThan(CRASHES)
}, 180_000)

test('a Postgres that is killed, and stopped where it stands, in the middle of traffic: sends are refused for now, nothing is lost, and all goes on by itself', async () => {
  const scene = await begin({ senders: 6, messages: 400, atOnce: 1 })
  const part = (share: number) => eventually(async () => scene.acknowledged() >= 6 * 400 * share, 'a part to be sent', 60_000)
  await part(0.2)
  const killed = server.postgresPid!
  process.kill(killed, 'SIGKILL')
  await part(0.5)
  expect(server.postgresPid).not.toBe(killed)
  server.signalPostgres('SIGSTOP')
  const refusedBefore = refusals(scene.senders).length
  await eventually(
    async () =>
      refusals(scene.senders)
        .slice(refusedBefore)
        .some((one) => one !== 'no answer'),
    'a refusal',
    60_000,
  )
  server.signalPostgres('SIGCONT')
  await scene.end()
  await judge(scene)
  const told = refusals(scene.senders).filter((one) => one !== 'no answer')
  expect(new Set(told.map(({ code, temporary }) => `${code} ${temporary}`))).toEqual(new Set(['unavailable true']))
  // All the while it was one server.
  expect(await Promise.race([server.exited, Promise.resolve('lives')])).toBe('lives')
}, 180_000)
