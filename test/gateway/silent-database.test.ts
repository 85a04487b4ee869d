import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { App } from '../../src/app.js'
import { startAppServer } from '../support/app-server.js'
import { type LossyProxy, startLossyProxy } from '../support/lossy-proxy.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { World, eventually, text, unique } from '../support/world.js'

/** The contract: what cannot be answered is refused for now; the caller never waits in vain. */
const PATIENCE_MS = 12_000

let postgres: TestPostgres
let proxy: LossyProxy
let app: App
let world: World
beforeAll(async () => {
  postgres = await startTestPostgres()
  const url = new URL(await postgres.createDatabase())
  proxy = await startLossyProxy(Number(url.port))
  url.port = String(proxy.port)
  // Its complaints about the loss are meant.
  app = await startAppServer(url.href, { env: { LOG_LEVEL: 'silent' } })
  world = new World(app.url)
})
afterAll(async () => {
  await app?.stop()
  await proxy?.close()
  await postgres?.stop()
})

test.each([
  ['stands still', () => postgres.freeze(), () => postgres.thaw()],
  ['is behind a line that swallows everything', () => proxy.swallow(), () => proxy.mend()],
] as const)(
  'while the database %s, every request and every frame is refused for now, and all goes on afterwards',
  async (_, lose, find) => {
    const [a, b, newcomer] = world.users('a', 'b', 'n')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    const { seq, position } = await a.send(conversation)
    await a.get('/v1/inbox')
    const device = await a.connect()
    const strangers = await Promise.all([1, 2].map(() => world.open()))
    const path = `/v1/conversations/${conversationId}`
    const message = { clientMessageId: unique('m'), content: text('x') }
    // Has the form of a position of this log, and a place that only the database could confirm.
    const ahead = position.replace(/^\d+/, (place) => String(Number(place) + 1_000_000).padStart(place.length, '0'))
    onTestFinished(find)
    lose()
    const calls: [string, string, unknown?][] = [
      ['GET', '/v1/inbox'],
      ['GET', '/v1/unread'],
      ['GET', '/v1/contacts'],
      ['GET', '/v1/devices'],
      ['GET', `/v1/users/${b.id}`],
      ['GET', `${path}/messages`],
      ['GET', `${path}/events`],
      ['GET', `${path}/members`],
      ['GET', `${path}/receipts`],
      ['GET', `${path}?minPosition=${ahead}`],
      ['GET', '/v1/conversations/g-never-seen'],
      ['POST', '/v1/conversations', { type: 'group', memberIds: [] }],
      ['POST', `${path}/messages`, message],
      ['POST', `${path}/read`, { seq }],
      ['PUT', `/v1/blocks/${b.id}`],
    ]
    const frames: [string, object][] = [
      ['message.send', { conversationId, clientMessageId: unique('m'), content: text('x') }],
      ['message.send', { conversationId: 'g-never-seen', clientMessageId: 'm', content: text('x') }],
      ['message.edit', { conversationId, seq, content: text('new') }],
      ['read', { conversationId, seq }],
      ['events.get', { conversationId }],
      ['events.get', { conversationId: 'g-never-seen-too' }],
      ['presence.query', { userIds: [newcomer.id] }],
    ]
    const answers = await Promise.all([
      ...calls.map(async ([method, callPath, body]) => {
        const answer = await orSilence(a.call(method, callPath, body))
        return [
          `${method} ${callPath}`,
          typeof answer === 'string' ? answer : answer.status < 300 ? 'ok' : (answer.body as { code: string }).code,
        ]
      }),
      ...frames.map(async ([type, fields]) => {
        const answer = await orSilence(device.request(type, fields))
        return [type, typeof answer === 'string' ? answer : answer.type === 'ok' ? 'ok' : answer.code]
      }),
      ...strangers.map(async (stranger, n) => {
        const answer = await orSilence(stranger.request('hello', { token: newcomer.token, ...(n === 0 ? {} : { position }) }))
        return ['hello', typeof answer === 'string' ? answer : answer.type === 'ok' ? 'ok' : answer.code]
      }),
    ])
    // What needs no database may be answered all the same.
    expect(answers.filter(([, outcome]) => outcome !== 'unavailable' && outcome !== 'ok')).toEqual([])
    expect(answers.filter(([, outcome]) => outcome === 'unavailable').length).toBeGreaterThan(15)
    find()
    await eventually(async () => (await world.call('/health/ready')).status === 200, 'the server to be ready', 60_000)
    await eventually(
      async () => (await strangers[0]!.request('hello', { token: newcomer.token })).type === 'ok',
      'hello to be taken',
      30_000,
    )
    const again = await eventually(async () => {
      const answer = await a.call('POST', `${path}/messages`, message)
      return answer.status < 300 && (answer.body as { seq: number })
    }, 'the message to be taken')
    await device.waitForSeq(conversationId, again.seq)
    expect(world.endDevices()).toEqual([])
  },
  120_000,
)

/** So that what gets no answer is named. */
const orSilence = <Answer>(answer: Promise<Answer>): Promise<Answer | string> => Promise.race([answer, sleep(PATIENCE_MS, 'no answer')])
