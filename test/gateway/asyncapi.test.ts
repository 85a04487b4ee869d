import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import type { App } from '../../src/app.js'
import { createAsyncApiDocument } from '../../src/gateway/asyncapi/document.js'
import { clientFrameNotes, eventExample, eventExamples, serverFrameNotes } from '../../src/gateway/asyncapi/examples.js'
import { clientFrames, closeCodes } from '../../src/gateway/frames.js'
import { answers, serverFrames } from '../../src/gateway/server-frames.js'
import { eventData } from '../../src/schemas/events.js'
import { compileBody } from '../../src/schemas/validator.js'
import { toYaml } from '../../src/yaml.js'
import { startAppServer } from '../support/app-server.js'
import type { Device, Frame } from '../support/device.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { World, sign, unique } from '../support/world.js'

const document = createAsyncApiDocument() as unknown as AsyncApi

interface AsyncApi {
  asyncapi: string
  operations: Record<string, { action: string; messages: { $ref: string }[]; reply?: { messages: { $ref: string }[] } }>
  components: { messages: Record<string, { payload: object; examples: unknown[] }>; schemas: Record<string, object> }
  'x-close-codes': { code: number }[]
  'x-errors': { code: string }[]
}

describe('the AsyncAPI document', () => {
  test('that is committed is current: if not, run "npm run openapi"', async () => {
    expect(await readFile(new URL('../../openapi/asyncapi.yaml', import.meta.url), 'utf8')).toBe(toYaml(document))
  })

  test('is AsyncAPI 3, and YAML that means what the document says', () => {
    expect(document.asyncapi).toMatch(/^3\./)
    expect(parse(toYaml(document))).toEqual(JSON.parse(JSON.stringify(document)))
    const odd = {
      '': '',
      no: 'no',
      a: [[], {}, [[1, 'x: y', '# z', '- q']], null, ' x', 'x ', 'a\n\nb', 'a\n', '\n', '12', '1e3', true],
      'k: v': { '~': '~' },
    }
    expect(parse(toYaml(odd))).toEqual(odd)
  })

  test('has every frame as an operation, with an example, and every error and close code', () => {
    const { operations, components } = document
    expect(Object.keys(operations).sort()).toEqual(
      [...Object.keys(clientFrames), ...Object.keys(serverFrames).flatMap((type) => (type === 'pong' ? [] : [`push.${type}`]))].sort(),
    )
    for (const type of answers.keys()) expect(operations[type]!.reply!.messages[0]!.$ref).toBe(`#/channels/socket/messages/ok.${type}`)
    for (const { examples } of Object.values(components.messages)) expect(examples.length).toBeGreaterThan(0)
    expect(Object.keys(components.schemas)).toEqual(expect.arrayContaining(Object.keys(eventData)))
    expect(document['x-close-codes'].map(({ code }) => code)).toEqual(expect.arrayContaining(Object.values(closeCodes)))
    expect(document['x-errors']).toHaveLength(15)
  })

  test('has examples that its schemas accept', () => {
    for (const [type, schema] of Object.entries(clientFrames)) {
      const { example, answer } = clientFrameNotes[type as keyof typeof clientFrames]
      expect(faultsOf(schema, example), type).toEqual([])
      expect(answer === undefined, `ok of ${type}`).toBe(!answers.has(type))
      if (answer) expect(faultsOf(answers.get(type)!, answer), `ok of ${type}`).toEqual([])
    }
    for (const [type, schema] of Object.entries(serverFrames))
      expect(faultsOf(schema, serverFrameNotes[type as keyof typeof serverFrames].example), type).toEqual([])
    for (const [type, data] of Object.entries(eventExamples)) {
      expect(faultsOf(serverFrames.events, { type: 'events', events: [eventExample(type, data)], resume: '1' }), type).toEqual([])
    }
  })
})

describe('what a server really sends', () => {
  let postgres: TestPostgres
  let app: App
  let world: World
  beforeAll(async () => {
    postgres = await startTestPostgres()
    app = await startAppServer(await postgres.createDatabase(), {
      env: { FANOUT_ON_WRITE_MAX: '3', FRAMES_PER_SECOND: '30' },
      times: { repushAfterMs: 300, presenceGraceMs: 50 },
    })
    world = new World(app.url)
  })
  afterAll(() => postgres?.stop())
  const seen = new Set<string>()

  test('is to be read at /docs/websocket, which loads nothing from another host', async () => {
    const [page, json] = await Promise.all(
      ['/docs/websocket', '/asyncapi.json'].map(async (path) => (await fetch(world.url + path)).text()),
    )
    expect(JSON.parse(json!)).toEqual(JSON.parse(JSON.stringify(document)))
    for (const name of [
      ...Object.keys(clientFrames),
      ...Object.keys(serverFrames),
      ...Object.keys(eventData),
      ...Object.values(closeCodes),
    ])
      expect(page).toMatch(new RegExp(`>${name}<`))
    // Links are relative, so that they hold behind a path prefix too.
    const base = `${world.url}/docs/websocket`
    const links = [...page!.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, link]) => new URL(link!, base))
    expect(links.length).toBeGreaterThan(0)
    for (const link of links) {
      expect(link.host).toBe(new URL(base).host)
      expect([link.pathname, (await fetch(link)).status]).toEqual([link.pathname, 200])
    }
  })

  test('is as the document says: every answer, push, error and event type', async () => {
    const [alice, bob, carol] = world.users('alice', 'bob', 'carol')
    const crew = await alice.group([bob])
    const { conversationId } = crew
    const device = await alice.connect({ deviceId: 'phone', acks: true })
    const other = await bob.connect({ acks: true })
    const asked = asker()
    await asked(device, 'presence.subscribe', { userIds: [bob.id], contacts: true })
    await asked(device, 'presence.query', { userIds: [bob.id] })

    const { seq } = await asked(device, 'message.send', {
      conversationId,
      clientMessageId: 'm1',
      content: { type: 'text', text: 'Hello' },
      mentions: [bob.id],
    })
    await asked(device, 'message.send', {
      conversationId,
      clientMessageId: 'm1',
      content: { type: 'text', text: 'Hello' },
      mentions: [bob.id],
    })
    await asked(device, 'message.send', {
      conversationId,
      clientMessageId: 'm2',
      content: { type: 'custom', data: { a: [1, null] } },
      replyToSeq: seq,
    })
    await asked(device, 'message.edit', { conversationId, seq, content: { type: 'text', text: 'Hello!' } })
    await asked(other, 'reaction.add', { conversationId, seq, emoji: '👍' })
    await asked(other, 'reaction.add', { conversationId, seq, emoji: '👍' })
    await asked(other, 'reaction.remove', { conversationId, seq, emoji: '👍' })
    for (const [method, path, body] of [
      ['PUT', `messages/${seq}/pin`],
      ['DELETE', `messages/${seq}/pin`],
      ['PATCH', '', { name: 'Crew', custom: { colour: 'red' }, joinPolicy: 'open' }],
      ['PATCH', '', { name: null }],
      ['PATCH', '', { frozen: true }],
      ['PATCH', '', { frozen: false }],
      ['POST', 'members', { userIds: [carol.id] }],
      ['PATCH', `members/${carol.id}`, { role: 'admin' }],
      ['DELETE', `members/${carol.id}`],
    ] as const)
      await alice.write(method, `/v1/conversations/${conversationId}${path === '' ? '' : `/${path}`}`, body)
    await carol.write('POST', `/v1/conversations/${conversationId}/join`)
    await carol.leave(crew)
    await asked(other, 'read', { conversationId, seq })
    await asked(other, 'read', { conversationId, seq })
    other.send({ type: 'ack', conversationId, seq })
    other.send({ type: 'typing', conversationId, on: true })
    await device.waitFor((frame) => frame.type === 'typing', 'typing')
    await asked(device, 'message.recall', { conversationId, seq })
    // Recalled content is blank in the facts.
    await asked(device, 'events.get', { conversationId, limit: 200 })
    await asked(device, 'events.get', { conversationId, after: 3, limit: 1 })
    await device.waitFor((frame) => frame.type === 'receipt' && frame.readSeq !== undefined, 'a read cursor')
    await device.waitFor((frame) => frame.type === 'receipt' && frame.deliveredSeq !== undefined, 'a delivered cursor')
    await device.waitFor((frame) => frame.again === true, 'a re-push')

    const created = await bob.group([alice], { name: 'Another', custom: {} })
    await device.waitForSeq(created.conversationId, 0)
    const crowd = await bob.group([alice, carol, world.user()])
    await bob.send(crowd)
    await device.waitFor((frame) => frame.type === 'head', 'head')

    await asked(device, 'message.send', { conversationId: 'none', clientMessageId: unique('m'), content: { type: 'text', text: 'Hello' } })
    device.send({ type: 'ack', conversationId: 'none', seq: 0 })
    device.send({ type: 'nonsense', ref: device.nextRef() })
    device.send({ type: 'ping' })
    for (let n = 0; n < 200; n += 1) device.send({ type: 'ping', ref: 1_000 + n })
    await device.waitFor((frame) => frame.code === 'rate_limited', 'rate_limited')
    other.close()
    await device.waitFor((frame) => frame.type === 'presence' && frame.online === false, 'presence')

    const back = await bob.connect({ position: other.position!, deviceId: 'tablet' })
    await bob.connect({ position: 'unknown' })
    const late = await bob.open()
    late.send({ type: 'ping' })
    await late.sayHello({ token: sign({ sub: bob.id, exp: 1 }) })
    await back.settled()
    await app.stop()
    await device.waitForClose()
    for (const one of [device, other, back, late]) hold(one, asked.types.get(one))
    expect(world.endDevices()).toEqual([])
    expect([...seen].sort()).toEqual(
      [...Object.keys(serverFrames), ...[...answers.keys()].map((type) => `ok ${type}`), ...Object.keys(eventData)].sort(),
    )
  })

  /** Every frame of this device is one of the document. */
  function hold(device: Device, types = new Map<number, string>()): void {
    for (const frame of device.frames) {
      const schema = schemaOf(frame, types)
      expect(schema && faultsOf(schema, frame), JSON.stringify(frame)).toEqual([])
      seen.add(frame.type === 'ok' ? `ok ${typeOfAnswer(frame, types)}` : frame.type)
      for (const event of frame.events ?? []) seen.add(event.type)
    }
  }

  const schemaOf = (frame: Frame, types: Map<number, string>) =>
    frame.type === 'ok' ? answers.get(typeOfAnswer(frame, types)) : serverFrames[frame.type as keyof typeof serverFrames]
  const typeOfAnswer = ({ ref, sessionId }: Frame, types: Map<number, string>) =>
    sessionId === undefined ? (types.get(ref!) ?? '') : 'hello'
})

/** Asks, and keeps which ref asked for what. */
function asker() {
  const types = new Map<Device, Map<number, string>>()
  const ask = async (device: Device, type: string, fields: object) => {
    const ref = device.nextRef()
    types.set(device, (types.get(device) ?? new Map<number, string>()).set(ref, type))
    device.send({ type, ref, ...fields })
    return device.answerTo(ref)
  }
  return Object.assign(ask, { types })
}

/** What is wrong with a value, as texts. */
function faultsOf(schema: object, value: unknown): string[] {
  const validate = validators.get(schema) ?? compileBody(schema)
  validators.set(schema, validate)
  return validate(value) ? [] : validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`)
}
const validators = new Map<object, ReturnType<typeof compileBody>>()
