import { afterAll, beforeAll, expect, test } from 'vitest'
import type { App } from '../../src/app.js'
import { startAppServer } from '../support/app-server.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { World, eventually, text, unique } from '../support/world.js'

let postgres: TestPostgres
let app: App
let world: World
beforeAll(async () => {
  postgres = await startTestPostgres()
  // Its complaints about the loss are meant.
  app = await startAppServer(await postgres.createDatabase(), { env: { LOG_LEVEL: 'silent' } })
  world = new World(app.url)
})
afterAll(async () => {
  await app?.stop()
  await postgres?.stop()
})

test('while the database is lost every request is refused for now, none as a bug; connections stay, and all goes on when it is back', async () => {
  const [a, b, newcomer] = world.users('a', 'b', 'n')
  const conversation = await a.group([b])
  const { conversationId } = conversation
  const sent = await a.send(conversation)
  const [device, listening, stranger] = [await a.connect(), await b.connect(), await world.open()]
  await postgres.kill()

  const refused: [string, object][] = [
    ['message.send', { conversationId, clientMessageId: 'during', content: text('x') }],
    ['message.edit', { conversationId, seq: sent.seq, content: text('new') }],
    ['reaction.add', { conversationId, seq: sent.seq, emoji: '👍' }],
    ['read', { conversationId: conversation.conversationId, seq: sent.seq - 1 }],
    ['events.get', { conversationId }],
    ['events.get', { conversationId: 'g-never-seen' }],
    ['message.send', { conversationId: 'g-never-seen', clientMessageId: 'm', content: text('x') }],
    ['presence.query', { userIds: [b.id] }],
  ]
  const answers = await Promise.all(refused.map(([type, fields]) => device.request(type, fields)))
  // What needs no database may be answered all the same.
  expect(answers.map(({ code, temporary, type }, index) => [refused[index]![0], type === 'ok' ? 'ok' : `${code} ${temporary}`])).toEqual(
    refused.map(([type], index) => [type, index === 3 ? expect.stringMatching(/^(ok|unavailable true)$/) : 'unavailable true']),
  )
  // Hello may be said again where it was refused.
  for (const position of [undefined, '0000000000000001', '0000000000000999']) {
    expect(await stranger.request('hello', { token: newcomer.token, position })).toMatchObject({
      type: 'error',
      code: 'unavailable',
      temporary: true,
    })
  }

  await postgres.restart()
  await eventually(async () => (await world.call('/health/ready')).status === 200, 'the server to be ready', 30_000)
  await eventually(async () => (await stranger.request('hello', { token: newcomer.token })).type === 'ok', 'hello to be taken')
  const again = await eventually(async () => {
    const answer = await device.request('message.send', { conversationId, clientMessageId: 'during', content: text('x') })
    return answer.type === 'ok' && answer
  }, 'the message to be taken')
  const after = await device.ask('message.send', { conversationId, clientMessageId: unique('m'), content: text('y') })
  await listening.waitForSeq(conversationId, after.seq!)
  expect(
    listening
      .events(conversationId)
      .filter(({ data }) => data.clientMessageId === 'during')
      .map(({ seq }) => seq),
  ).toEqual([again.seq])
  expect(listening.seqs(conversationId)).toEqual((await a.events(conversation)).map(({ seq }) => seq).filter((seq) => seq > sent.seq))
  expect(world.endDevices()).toEqual([])
}, 90_000)
