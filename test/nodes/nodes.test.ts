import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Device } from '../support/device.js'
import { type Log, type LogName, logNames, startLog, withoutLog } from '../support/logs.js'
import { Node } from '../support/nodes.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { dumpTables } from '../support/read-side.js'
import { type TestRedis, hasRedis, startTestRedis } from '../support/redis.js'
import { type Conversation, type User, eventually, text, unique } from '../support/world.js'

for (const name of logNames)
  describe.skipIf(!hasRedis || withoutLog(name))(`three nodes that share Postgres, Redis and a log in ${name}`, () => threeNodes(name))

function threeNodes(name: LogName): void {
  let postgres: TestPostgres
  let log: Log
  let redis: TestRedis
  let databaseUrl: string
  /** Projects; the others stand by. */
  let first: Node
  let second: Node
  let third: Node

  beforeAll(async () => {
    ;[postgres, redis, log] = await Promise.all([startTestPostgres(), startTestRedis(), startLog(name)])
    databaseUrl = await postgres.createDatabase()
    first = await startNode()
    ;[second, third] = await Promise.all([startNode(), startNode()])
  })
  afterEach(async () => {
    const violations = nodes().flatMap((node) => node.world.endDevices())
    await Promise.all([redis, ...nodes()].map((part) => part.heal()))
    expect(violations).toEqual([])
  })
  afterAll(async () => {
    await Promise.all([first, second, third].map((node) => node?.stop()))
    await Promise.all([log?.stop(), redis?.stop(), postgres?.stop()])
  })

  const startNode = (env: Record<string, string> = {}) =>
    Node.start({ ...log.env, DATABASE_URL: databaseUrl, REDIS_URL: redis.url, ...env })
  const nodes = () => [first, second, third]
  /** Somebody, with an account on each node: any node serves any user. */
  const onAll = (user: User) => nodes().map((node) => node.as(user))

  test('writers on two nodes give one dense order, and every device on every node gets it', async () => {
    const [alice, bob, carol] = [first.user('alice'), second.user('bob'), third.user('carol')]
    const group = await alice.group([bob, carol])
    const devices = await Promise.all([
      alice.connect(),
      bob.connect(),
      carol.connect(),
      second.as(alice).connect(),
      third.as(bob).connect(),
    ])
    const sent = await Promise.all(
      [alice, bob, carol].flatMap((user) => Array.from({ length: 60 }, (_, i) => user.send(group, `${user.id} ${i}`))),
    )
    expect(sent.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(Array.from({ length: 180 }, (_, i) => i + 1))
    expect(sent.map(({ ordinal }) => ordinal).sort((a, b) => a - b)).toEqual(Array.from({ length: 180 }, (_, i) => i + 1))
    const log = await bob.events(group)
    for (const device of devices) {
      await device.waitForSeq(group.conversationId, 180)
      expect(device.events(group.conversationId).map(({ seq, data }) => [seq, data])).toEqual(
        log.slice(-device.events(group.conversationId).length).map(({ seq, data }) => [seq, data]),
      )
      expect(device.seqs(group.conversationId).at(-1)).toBe(180)
    }
  })

  test('one message id sent to three nodes at once is one message', async () => {
    const alice = first.user('alice')
    const group = await alice.group()
    const fields = { clientMessageId: unique('m'), content: text('once') }
    const answers = await Promise.all(
      onAll(alice).map((user) =>
        user.call<{ seq: number; duplicate?: boolean }>('POST', `/v1/conversations/${group.conversationId}/messages`, fields),
      ),
    )
    expect(new Set(answers.map(({ body }) => body.seq))).toEqual(new Set([1]))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 201])
  })

  test('a read with minPosition on a node that does not project shows what was written on another', async () => {
    const [alice, bob] = [first.user('alice'), second.user('bob')]
    const group = await alice.group([bob])
    for (let i = 0; i < 10; i += 1) {
      const { position, seq } = await alice.send(group)
      const inbox = await third.as(bob).get<{ items: { head: number; unread: number }[] }>(`/v1/inbox?minPosition=${position}`)
      expect(inbox.items[0]).toMatchObject({ head: seq, unread: i + 1 })
    }
  })

  test('once its feed has brought them, a removal and a recall hold on every node', async () => {
    const [alice, bob] = [first.user('alice'), second.user('bob')]
    const group = await alice.group([bob])
    const device = await bob.connect()
    const { seq, position } = await alice.send(group, 'to be recalled')
    await device.waitForSeq(group.conversationId, seq)
    await alice.recall(group, seq)
    await device.waitForEvent(({ type }) => type === 'MessageRecalled', 'the recall')
    const events = await bob.events(group)
    expect(events.find((event) => event.seq === seq)!.data.content).toBeNull()
    // The message must be there to be read; that it was recalled the node knows by itself.
    const { items } = await bob.get<{ items: { content: unknown }[] }>(
      `/v1/conversations/${group.conversationId}/messages?minPosition=${position}`,
    )
    expect(items[0]!.content).toBeNull()
    const removed = await alice.remove(group, bob)
    await device.waitForSeq(group.conversationId, removed.seq)
    expect((await bob.call('GET', `/v1/conversations/${group.conversationId}/messages`)).status).toBe(404)
    await alice.send(group, 'not for bob')
    await device.settled()
    expect(device.seqs(group.conversationId).at(-1)).toBe(removed.seq)
  })

  test('a device that was revoked on one node is closed on the other', async () => {
    const alice = first.user('alice')
    const device = await alice.connect({ deviceId: 'phone' })
    await second.as(alice).write('DELETE', '/v1/devices/phone')
    expect(await device.waitForClose()).toBe(4503)
  })

  test('a device that connects to another node takes the place of its older connection', async () => {
    const alice = first.user('alice')
    const older = await alice.connect({ deviceId: 'phone' })
    const other = await alice.connect({ deviceId: 'tablet' })
    const newer = await second.as(alice).connect({ deviceId: 'phone' })
    expect(await older.waitForClose()).toBe(4505)
    await Promise.all([other.settled(), newer.settled()])
    expect([other.closeCode, newer.closeCode]).toEqual([undefined, undefined])
  })

  test('the 21st connection of a user closes the oldest, on whichever node', async () => {
    const alice = first.user('alice')
    const everywhere = onAll(alice)
    const devices: Device[] = []
    for (let i = 0; i < 21; i += 1) devices.push(await everywhere[i % 3]!.connect({ deviceId: `device-${i}` }))
    expect(await devices[0]!.waitForClose()).toBe(4505)
    await Promise.all(devices.slice(1).map((device) => device.settled()))
    expect(devices.slice(1).every(({ closeCode }) => closeCode === undefined)).toBe(true)
  })

  test('typing on one node is seen on the others, at most once a second', async () => {
    const [alice, bob, carol] = [first.user('alice'), second.user('bob'), third.user('carol')]
    const group = await alice.group([bob, carol])
    const [typist, ...others] = await Promise.all([alice.connect(), bob.connect(), carol.connect()])
    for (const on of [true, true, false]) typist.send({ type: 'typing', conversationId: group.conversationId, on })
    for (const device of others) {
      await device.waitFor((frame) => frame.type === 'typing' && frame.on === false, 'the end of typing')
      expect(device.ofType('typing')).toEqual(
        [true, false].map((on) => ({ type: 'typing', conversationId: group.conversationId, userId: alice.id, on })),
      )
    }
    expect(typist.ofType('typing')).toEqual([])
  })

  test('presence is the same on every node, and those who may see it are told', async () => {
    const [alice, bob, stranger] = [first.user('alice'), second.user('bob'), third.user('stranger')]
    await alice.group([bob])
    const device = await bob.connect()
    expect((await device.ask('presence.subscribe', { userIds: [alice.id, stranger.id] })).items).toEqual(
      [alice, stranger].map(({ id }) => ({ userId: id, online: false, lastSeenAt: null })),
    )
    const strangers = await stranger.connect()
    await strangers.ask('presence.subscribe', { userIds: [alice.id] })
    const alices = await alice.connect({ deviceId: 'phone' })
    expect(await device.waitFor(({ type }) => type === 'presence', 'alice to come')).toMatchObject({
      userId: alice.id,
      online: true,
      lastSeenAt: null,
    })
    const devicesOfAlice = await eventually(async () => {
      const { items } = await third.as(alice).get<{ items: object[] }>('/v1/devices')
      return items.length > 0 && items
    }, 'the device to be known')
    expect(devicesOfAlice).toEqual([{ deviceId: 'phone', online: true, lastSeenAt: null }])
    alices.close()
    expect(await device.waitFor(({ type, online }) => type === 'presence' && !online, 'alice to go')).toMatchObject({
      userId: alice.id,
      online: false,
      lastSeenAt: expect.any(String),
    })
    await strangers.settled()
    expect(strangers.ofType('presence')).toEqual([])
  })

  test('a node that is killed: its devices go on elsewhere and miss nothing, and who does not come back is offline', {
    timeout: 60_000,
  }, async () => {
    const [alice, bob, gone] = [first.user('alice'), second.user('bob'), second.user('gone')]
    const group = await alice.group([bob, gone])
    const watcher = await alice.connect()
    await watcher.ask('presence.subscribe', { userIds: [bob.id, gone.id] })
    const [bobs, gones] = await Promise.all([bob.connect({ deviceId: 'phone' }), gone.connect({ deviceId: 'phone' })])
    await watcher.until(() => watcher.ofType('presence').length === 2, 'both to come')
    await alice.sendMany(group, 20)
    await bobs.waitForSeq(group.conversationId, 10)
    const killing = second.kill()
    await alice.sendMany(group, 20)
    await killing
    await gones.waitForClose()
    const again = await third.as(bob).connect({ deviceId: 'phone', position: bobs.position })
    expect(again.hello!.recovered).toBe(true)
    const { seq } = await alice.send(group, 'the last')
    await again.waitForSeq(group.conversationId, seq)
    const seen = new Set([...bobs.seqs(group.conversationId), ...again.seqs(group.conversationId)])
    // 0 is the group itself, which bob may have seen made.
    for (let n = 1; n <= seq; n += 1) expect(seen.has(n)).toBe(true)
    const left = await watcher.until(
      () => watcher.ofType('presence').find(({ online }) => !online),
      'the one who does not come back to be offline',
    )
    expect(left).toMatchObject({ userId: gone.id, lastSeenAt: expect.any(String) })
    expect((await watcher.ask('presence.query', { userIds: [bob.id, gone.id] })).items!.map(({ online }) => online)).toEqual([true, false])
    await second.restart()
  })

  test('the node that projects is killed: another takes over, and reads go on', { timeout: 60_000 }, async () => {
    const [alice, bob] = [second.user('alice'), third.user('bob')]
    const group = await alice.group([bob])
    await first.kill()
    const killedAt = performance.now()
    const { position } = await alice.send(group, 'while nobody projects')
    const inbox = await eventually(async () => {
      const answer = await bob.call<{ items: { unread: number }[] }>('GET', `/v1/inbox?minPosition=${position}`)
      return answer.status === 200 && answer.body
    }, 'the standby to take over')
    expect(performance.now() - killedAt).toBeLessThan(5_000)
    expect(inbox.items[0]!.unread).toBe(1)
    await first.restart()
    const { seq } = await alice.send(group, 'after that')
    expect(
      (await first.as(bob).get<{ items: { head: number }[] }>(`/v1/inbox?minPosition=${(await alice.send(group)).position}`)).items[0]!
        .head,
    ).toBe(seq + 1)
  })

  test('the node that projects stands still in the middle of traffic: another takes over in time, and when it wakes up nothing is doubled', {
    timeout: 120_000,
  }, async () => {
    const database = await postgres.createDatabase()
    const leading = await startNode({ DATABASE_URL: database })
    const standby = await startNode({ DATABASE_URL: database })
    try {
      const [alice, bob] = [standby.user('alice'), standby.user('bob')]
      const group = await alice.group([bob])
      let position = ''
      const send = async (count: number) => {
        for (let n = 0; n < count; n += 1) ({ position } = await alice.send(group))
      }
      await send(20)
      leading.freeze()
      const frozenAt = performance.now()
      await send(20)
      const unread = async () => (await bob.call<{ items: { unread: number }[] }>('GET', `/v1/inbox?minPosition=${position}`)).body
      await eventually(async () => (await unread()).items?.[0]?.unread === 40, 'the standby to take over', 60_000)
      expect(performance.now() - frozenAt).toBeLessThan(20_000)
      leading.thaw()
      await send(20)
      await eventually(async () => (await unread()).items?.[0]?.unread === 60, 'the standby to go on')
      await eventually(async () => (await leading.world.call('/health/ready')).status === 200, 'the other to be well')
      const tables = await dumpTables(database)
      await standby.command('replay')
      expect(await dumpTables(database)).toEqual(tables)
    } finally {
      leading.thaw()
      await Promise.all([leading.stop(), standby.stop()])
    }
  })

  test('Redis is killed and comes back: messages flow all the time, and presence is back by itself', { timeout: 60_000 }, async () => {
    const [alice, bob] = [first.user('alice'), second.user('bob')]
    const group = await alice.group([bob])
    const [alices, bobs] = await Promise.all([alice.connect({ deviceId: 'phone' }), bob.connect({ deviceId: 'phone' })])
    await bobs.ask('presence.subscribe', { userIds: [alice.id] })
    const traffic = new Traffic(alices, group)
    await redis.kill()
    await eventually(
      async () => (await bobs.request('presence.query', { userIds: [alice.id] })).code === 'unavailable',
      'presence to be unavailable',
    )
    const devices = await eventually(async () => {
      const { items } = await bob.get<{ items: object[] }>('/v1/devices')
      return items.length > 0 && items
    }, 'the device to be known')
    expect(devices).toEqual([{ deviceId: 'phone', online: false, lastSeenAt: null }])
    await sleep(500)
    const comesMeanwhile = await third.user('carol').connect()
    await redis.restart()
    await eventually(async () => (await bobs.request('presence.query', { userIds: [alice.id] })).items?.[0]?.online, 'presence to be back')
    await sleep(500)
    const { last, slowestMs } = await traffic.end()
    await bobs.waitForSeq(group.conversationId, last)
    expect(slowestMs).toBeLessThan(1_000)
    await eventually(async () => {
      alices.send({ type: 'typing', conversationId: group.conversationId, on: false })
      await sleep(50)
      return bobs.ofType('typing').length > 0
    }, 'typing to be back')
    expect(comesMeanwhile.closeCode).toBeUndefined()
    for (const node of nodes()) {
      const said = node.lines.filter((line) => line.includes('Redis is'))
      expect(said.map((line) => (JSON.parse(line) as { msg: string }).msg.split(':')[0]).slice(-2)).toEqual([
        'Redis is lost',
        'Redis is back',
      ])
    }
  })

  test('a Redis that hangs delays no message', { timeout: 60_000 }, async () => {
    const [alice, bob] = [first.user('alice'), second.user('bob')]
    const group = await alice.group([bob])
    const [alices, bobs] = await Promise.all([alice.connect(), bob.connect()])
    const traffic = new Traffic(alices, group)
    redis.freeze()
    await sleep(5_000)
    const rest = await Promise.all([1, 2, 3].map(() => alice.send(group)))
    redis.thaw()
    const { last, slowestMs } = await traffic.end()
    await bobs.waitForSeq(group.conversationId, Math.max(last, ...rest.map(({ seq }) => seq)))
    expect(slowestMs).toBeLessThan(1_000)
    await eventually(async () => (await bobs.request('presence.query', { userIds: [alice.id] })).items?.[0]?.online, 'presence to be back')
  })

  test('roles can be split: one node answers calls, one has the sockets, one projects', { timeout: 60_000 }, async () => {
    const database = await postgres.createDatabase()
    const projections = await startNode({ DATABASE_URL: database, ROLES: 'projections' })
    const [api, gateway] = await Promise.all([
      startNode({ DATABASE_URL: database, ROLES: 'api' }),
      startNode({ DATABASE_URL: database, ROLES: 'gateway' }),
    ])
    const [alice, bob] = [api.user('alice'), api.user('bob')]
    try {
      const group = await alice.group([bob])
      const device = await gateway.as(bob).connect({ deviceId: 'phone' })
      const { seq } = await alice.send(group)
      await device.waitForSeq(group.conversationId, seq)
      expect((await alice.call<{ items: object[] }>('POST', '/v1/presence/query', { userIds: [bob.id] })).body.items).toEqual([
        { userId: bob.id, online: true, lastSeenAt: null },
      ])
      const answer = await device.ask('message.send', {
        conversationId: group.conversationId,
        clientMessageId: unique('m'),
        content: text('from the gateway'),
      })
      const { items } = await alice.get<{ items: { unread: number; head: number }[] }>(`/v1/inbox?minPosition=${answer.position}`)
      expect(items[0]).toMatchObject({ head: answer.seq, unread: 1 })
      // The states of a node without sockets follow the log, too.
      const leaving = await device.request('events.get', { conversationId: group.conversationId })
      expect(leaving.head).toBe(answer.seq)
      expect((await gateway.as(alice).call('GET', '/v1/inbox')).status).toBe(404)
      await expect(api.as(alice).open()).rejects.toThrow('refused 40')
      await expect(projections.as(alice).open()).rejects.toThrow('refused 40')
      for (const node of [api, gateway, projections]) {
        expect((await node.world.call('/health/ready')).status).toBe(200)
        expect((await node.world.call('/metrics')).status).toBe(200)
      }
      expect(gateway.world.endDevices()).toEqual([])
    } finally {
      await Promise.all([projections, api, gateway].map((node) => node.stop()))
    }
  })
}

/** One message after the other, as fast as they are acknowledged, with a pause. */
class Traffic {
  readonly #sending: Promise<{ last: number; slowestMs: number }>
  #isEnding = false

  constructor(device: Device, { conversationId }: Conversation) {
    this.#sending = this.#send(device, conversationId)
    // A test that fails before `end` has nobody who waits for it.
    this.#sending.catch(() => undefined)
  }

  end(): Promise<{ last: number; slowestMs: number }> {
    this.#isEnding = true
    return this.#sending
  }

  async #send(device: Device, conversationId: string): Promise<{ last: number; slowestMs: number }> {
    let last = 0
    let slowestMs = 0
    while (!this.#isEnding) {
      const startedAt = performance.now()
      last = (await device.ask('message.send', { conversationId, clientMessageId: unique('m'), content: text('on and on') })).seq!
      slowestMs = Math.max(slowestMs, performance.now() - startedAt)
      await sleep(20)
    }
    return { last, slowestMs }
  }
}
