import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startAppServer, useServer } from '../support/app-server.js'
import type { Device } from '../support/device.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { User, World, eventually, text } from '../support/world.js'

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n)

describe('connections', () => {
  const world = useServer({ times: { presenceGraceMs: 50 } })

  test('one a device: the newer one takes the place of the older', async () => {
    const user = world().user()
    const older = await user.connect({ deviceId: 'phone' })
    const other = await user.connect({ deviceId: 'laptop' })
    const newer = await user.connect({ deviceId: 'phone' })
    expect(await older.waitForClose()).toBe(4505)
    const sent = await user.send(await user.group())
    for (const device of [newer, other]) await device.waitForSeq(sent.conversationId, sent.seq)
  })

  test('the same device of two users is two devices', async () => {
    const [a, b] = world().users('a', 'b')
    const devices = [await a.connect({ deviceId: 'phone' }), await b.connect({ deviceId: 'phone' })]
    for (const device of devices) await device.settled()
  })

  test('20 a user: the oldest makes room', async () => {
    const user = world().user()
    const devices: Device[] = []
    for (let n = 0; n < 20; n += 1) devices.push(await user.connect())
    for (const device of devices) await device.settled()
    devices.push(await user.connect(), await user.connect())
    for (const device of devices.slice(0, 2)) expect(await device.waitForClose()).toBe(4505)
    for (const device of devices.slice(2)) await device.settled()
  })

  test('a device that does not read is closed, the others go on, and a resume makes it whole', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const [slow, fast, sending] = [await b.connect({ deviceId: 'slow' }), await b.connect({ deviceId: 'fast' }), await a.connect()]
    const { conversationId } = conversation
    slow.pause()
    const words = 'x'.repeat(19_000)
    let sent = 0
    await eventually(async () => {
      await Promise.all(
        range(1, 40).map((n) => sending.ask('message.send', { conversationId, clientMessageId: `m${sent + n}`, content: text(words) })),
      )
      sent += 40
      const { items } = await b.get<{ items: { deviceId: string; online: boolean }[] }>('/v1/devices')
      return items.find(({ deviceId }) => deviceId === 'slow')!.online === false
    }, 'the slow device to be given up')
    await fast.waitForSeq(conversationId, sent)
    expect(fast.seqs(conversationId)).toEqual(range(1, sent))
    slow.read()
    expect(await slow.waitForClose()).toBe(4001)
    const arrived = slow.lastSeq(conversationId)
    expect(arrived).toBeLessThan(sent)
    const resumed = await b.connect({ deviceId: 'slow', position: slow.position })
    expect(resumed.hello!.recovered).toBe(true)
    await resumed.waitForSeq(conversationId, sent)
    expect(resumed.seqs(conversationId)[0]).toBeLessThanOrEqual(arrived + 1)
    expect(resumed.seqs(conversationId).at(-1)).toBe(sent)
  })
})

describe('time', () => {
  const world = useServer({ times: { helloWithinMs: 2_000, heartbeatMs: 600 } })

  test('hello must come in time', async () => {
    const [silent, talking] = [await world().open(), await world().open()]
    talking.send({ type: 'ping' })
    for (const device of [silent, talking]) {
      expect(await device.waitForClose()).toBe(4008)
      expect(device.frames.at(-1)).toMatchObject({ type: 'error', code: 'unauthenticated' })
    }
  })

  test('a ping comes every heartbeatMs; who answers stays, who is silent for twice that is closed', async () => {
    const user = world().user()
    const [answering, silent] = [await user.connect(), await user.connect({ autoPong: false })]
    expect(answering.hello!.heartbeatMs).toBe(600)
    const begun = performance.now()
    expect(await silent.waitForClose()).toBe(1006)
    expect(performance.now() - begun).toBeGreaterThan(1_100)
    expect(silent.pings).toBeGreaterThan(0)
    await answering.until(() => answering.pings >= 5, 'five pings')
    await answering.settled()
  })

  test('who sends frames is not silent, though it never answers a ping', async () => {
    const device = await world().user().connect({ autoPong: false })
    while (device.pings < 4) {
      const { pings } = device
      await device.settled()
      await device.until(() => device.pings > pings, 'the next ping')
    }
    await device.settled()
  })
})

describe('a user who has used all units', () => {
  // The clock of the budgets stands still: nothing comes back.
  const world = useServer({ times: { helloWithinMs: 2_000 }, load: { userUnitsPerSecond: 1, now: () => 0 } })

  test('a hello that is refused for now wins no time', async () => {
    const user = world().user()
    await user.connect()
    const device = await user.open()
    const insist = async () => {
      for (;;) expect(await device.sayHello({ token: user.token })).toMatchObject({ code: 'rate_limited', temporary: true })
    }
    await expect(insist()).rejects.toThrow('the socket is closed (4008)')
  })
})

describe('a server that leaves', () => {
  let postgres: TestPostgres
  beforeAll(async () => {
    postgres = await startTestPostgres()
  })
  afterAll(() => postgres.stop())

  test('says goaway, closes with 4000, takes no new ones, and has written what devices have read', async () => {
    const connectionString = await postgres.createDatabase()
    const app = await startAppServer(connectionString)
    const world = new World(app.url)
    const [a, b] = world.users('a', 'b')
    const conversation = await a.group([b])
    const { conversationId } = conversation
    await a.sendMany(conversation, 3)
    const [device, other, greeting] = [await b.connect(), await a.connect(), await world.open()]
    // Does not read, so it does not answer the close: the server is still there while it waits for that.
    const stubborn = await b.connect()
    stubborn.pause()
    device.send({ type: 'read', conversationId, seq: 2 })
    device.send({ type: 'ack', conversationId, seq: 3 })
    await device.settled()
    const stopped = app.stop()
    await expect(world.open()).rejects.toThrow(/refused 503: .*"code":"unavailable".*"temporary":true/)
    for (const one of [device, other, greeting]) {
      expect(await one.waitForClose()).toBe(4000)
      const frame = one.frames.find(({ type }) => type === 'goaway')
      expect(frame).toEqual({ type: 'goaway', reconnectAfterMs: expect.any(Number) })
    }
    await stopped
    expect(world.endDevices()).toEqual([])
    const next = await startAppServer(connectionString)
    const again = new User(new World(next.url), a.id)
    // What is written later is later in the log: the receipts are there when that is.
    const { position } = await again.send(conversation)
    const { items } = await again.get<{ items: { userId: string; readSeq: number; deliveredSeq: number }[] }>(
      `/v1/conversations/${conversationId}/receipts?minPosition=${position}`,
    )
    expect(items.find(({ userId }) => userId === b.id)).toMatchObject({ readSeq: 2, deliveredSeq: 3 })
    await next.stop()
  })

  test('answers no frame falsely: what was acknowledged is there, the rest may be sent again', async () => {
    const connectionString = await postgres.createDatabase()
    const app = await startAppServer(connectionString)
    const user = new World(app.url).user()
    const { conversationId } = await user.group()
    const device = await user.connect()
    const refs = range(1, 300).map((n) => {
      const ref = device.nextRef()
      device.send({ type: 'message.send', ref, conversationId, clientMessageId: `m${n}`, content: text(`${n}`) })
      return ref
    })
    await device.until(() => device.ofType('ok').length > 20, 'the first answers')
    await app.stop()
    expect(await device.waitForClose()).toBe(4000)
    const acknowledged = new Map(
      device
        .ofType('ok')
        .filter(({ ref }) => refs.includes(ref!))
        .map(({ ref, seq }) => [`m${refs.indexOf(ref!) + 1}`, seq]),
    )
    const next = await startAppServer(connectionString)
    const { body } = await new World(next.url).call<{ items: { seq: number; data: { clientMessageId?: string } }[] }>(
      `/v1/conversations/${conversationId}/events?limit=200`,
      { token: user.token },
    )
    for (const [id, seq] of acknowledged) if (seq! < 200) expect(body.items.find(({ data }) => data.clientMessageId === id)?.seq).toBe(seq)
    expect(acknowledged.size).toBeGreaterThan(20)
    await next.stop()
  })
})
