import { describe, expect, test } from 'vitest'
import type { Connection } from '../../src/gateway/connection.js'
import { LocalOnlineDevices } from '../../src/gateway/local-online-devices.js'
import { LivePresence } from '../../src/gateway/presence.js'
import { NODES, useServer } from '../support/app-server.js'
import type { Device } from '../support/device.js'
import { type User, eventually } from '../support/world.js'

const GRACE_MS = 250
const world = useServer({ times: { presenceGraceMs: GRACE_MS } })

const stateOf = async (device: Device, user: User) => (await device.ask('presence.query', { userIds: [user.id] })).items![0]!
const offline = (user: User) => ({ userId: user.id, online: false, lastSeenAt: null })
const told = (device: Device, user: User) =>
  device
    .ofType('presence')
    .filter(({ userId }) => userId === user.id)
    .map(({ online }) => online)

async function goOffline(watching: Device, user: User, device: Device): Promise<void> {
  device.close()
  await watching.until(() => told(watching, user).at(-1) === false, `${user.id} to be offline`)
}

test('a connection that breaks off before its hello is answered takes nothing away from the one that is there', async () => {
  const online = new LocalOnlineDevices({ graceMs: 0 })
  const presence = new LivePresence({
    online,
    users: undefined as never,
    readModels: undefined as never,
    connectionsOf: undefined,
    onError: (error) => {
      throw error
    },
  })
  const socketOf = (userId: string, sessionId: string) => ({ userId, deviceId: 'phone', sessionId }) as Connection
  presence.connected(socketOf('there', 'one'))
  presence.disconnected(socketOf('there', 'broken off'))
  const passing = socketOf('passing', 'two')
  presence.connected(passing)
  presence.disconnected(passing)
  await eventually(async () => !(await online.find(['passing']))[0]!.online, 'the grace to be over')
  expect(await online.find(['there'])).toEqual([{ online: true, lastSeenAt: null }])
})

describe('presence', () => {
  test('of who shares a conversation is told to subscribers, coming and going', async () => {
    const [a, b] = world().users('a', 'b')
    await a.group([b])
    const watching = await a.connect()
    expect((await watching.ask('presence.subscribe', { userIds: [b.id] })).items).toEqual([offline(b)])
    const phone = await b.connect()
    expect(await watching.waitFor(({ type }) => type === 'presence', 'online')).toEqual({
      type: 'presence',
      userId: b.id,
      online: true,
      lastSeenAt: null,
    })
    expect(await stateOf(watching, b)).toEqual({ userId: b.id, online: true, lastSeenAt: null })
    const before = Date.now()
    await goOffline(watching, b, phone)
    const { lastSeenAt } = watching.ofType('presence').at(-1)!
    expect(Date.parse(lastSeenAt!)).toBeGreaterThanOrEqual(before - 1_000)
    expect(Date.parse(lastSeenAt!)).toBeLessThanOrEqual(Date.now())
    expect(await stateOf(watching, b)).toEqual({ userId: b.id, online: false, lastSeenAt })
  })

  // On another node it is known once that node's feed has brought it.
  test.skipIf(NODES > 1)('of who shares a conversation is known as soon as it is made', async () => {
    const [a, b] = world().users('a', 'b')
    const [watching] = [await a.connect(), await b.connect()]
    for (let n = 0; n < 5; n += 1) {
      const c = world().user('c')
      await c.connect()
      await c.group([a])
      expect(await stateOf(watching, c)).toEqual({ userId: c.id, online: true, lastSeenAt: null })
    }
  })

  test('ends with a block, on both sides, and is back without it; strangers are told nothing', async () => {
    const [a, b, stranger] = world().users('a', 'b', 's')
    await a.group([b])
    const devices = [await a.connect(), await b.connect()] as const
    const theirs = await stranger.connect()
    await devices[0].ask('presence.subscribe', { userIds: [b.id] })
    for (const device of [devices[1], theirs]) await device.ask('presence.subscribe', { userIds: [a.id] })
    const told = () => devices.map((device) => device.ofType('presence'))
    const online = (user: User) => ({ type: 'presence', userId: user.id, online: true, lastSeenAt: null })
    for (const other of [stranger, b]) await a.write('PUT', `/v1/blocks/${other.id}`)
    for (const device of devices) await device.waitFor(({ type }) => type === 'presence', 'offline')
    expect(told()).toEqual([b, a].map((user) => [{ type: 'presence', ...offline(user) }]))
    // With a block from the other side too, taking away the one changes nothing.
    await b.write('PUT', `/v1/blocks/${a.id}`)
    await a.write('DELETE', `/v1/blocks/${b.id}`)
    await b.write('DELETE', `/v1/blocks/${a.id}`)
    for (const device of devices) await device.until(() => device.ofType('presence').length > 1, 'online again')
    expect(told()).toEqual([b, a].map((user) => [{ type: 'presence', ...offline(user) }, online(user)]))
    await theirs.settled()
    expect(theirs.ofType('presence')).toEqual([])
  })

  test('lasts as long as one device is there, and a reconnect is no going', async () => {
    const [a, b] = world().users('a', 'b')
    await a.group([b])
    const watching = await a.connect()
    await watching.ask('presence.subscribe', { userIds: [b.id] })
    const [phone, laptop] = [await b.connect({ deviceId: 'phone' }), await b.connect({ deviceId: 'laptop' })]
    phone.close()
    for (let n = 0; n < 5; n += 1) {
      laptop.close()
      await laptop.waitForClose()
      const again = await b.connect({ deviceId: 'laptop' })
      again.close()
      await again.waitForClose()
    }
    const last = await b.connect({ deviceId: 'laptop' })
    await goOffline(watching, b, last)
    expect(told(watching, b)).toEqual([true, false])
  })

  test('of a device whose newer connection has taken over stays', async () => {
    const [a, b] = world().users('a', 'b')
    await a.group([b])
    const watching = await a.connect()
    await watching.ask('presence.subscribe', { userIds: [b.id] })
    for (let n = 0; n < 5; n += 1) await b.connect({ deviceId: 'phone' })
    const other = world().user('c')
    await a.group([other])
    await watching.ask('presence.subscribe', { userIds: [b.id, other.id] })
    const passing = await other.connect()
    // Their grace is over when another one's is that began later.
    await goOffline(watching, other, passing)
    expect((await stateOf(watching, b)).online).toBe(true)
  })

  test('is hidden from strangers, and seen by those whom one has as a contact', async () => {
    const [a, b, stranger] = world().users('a', 'b', 's')
    await b.connect()
    const [watching, outside] = [await a.connect(), await stranger.connect()]
    expect(await stateOf(watching, b)).toEqual(offline(b))
    // b has a as a contact: a sees b, and b does not see a.
    await b.write('PUT', `/v1/contacts/${a.id}`)
    expect((await stateOf(watching, b)).online).toBe(true)
    expect(await stateOf(outside, b)).toEqual(offline(b))
    expect(await stateOf(await b.connect(), a)).toEqual(offline(a))
    await b.write('DELETE', `/v1/contacts/${a.id}`)
    expect(await stateOf(watching, b)).toEqual(offline(b))
  })

  test.each(['the watched', 'the watching'])('is hidden by a block of %s', async (who) => {
    const [a, b] = world().users('a', 'b')
    await a.group([b])
    const watching = await a.connect()
    await watching.ask('presence.subscribe', { userIds: [b.id] })
    const phone = await b.connect()
    await watching.until(() => told(watching, b).at(-1) === true, 'online')
    const [blocking, blocked] = who === 'the watched' ? [b, a] : [a, b]
    await blocking.write('PUT', `/v1/blocks/${blocked.id}`)
    expect(await stateOf(watching, b)).toEqual(offline(b))
    await watching.until(() => told(watching, b).at(-1) === false, 'offline by the block')
    phone.close()
    // Somebody else who goes after b is told of: b was not.
    const other = world().user('c')
    await a.group([other])
    await watching.ask('presence.subscribe', { userIds: [b.id, other.id] })
    await goOffline(watching, other, await other.connect())
    expect(told(watching, b)).toEqual([true, false])
  })

  test("of one's own contacts is subscribed to in one go; a new subscription replaces the old", async () => {
    const [a, b, c] = world().users('a', 'b', 'c')
    await a.group([b, c])
    const { position } = await a.write('PUT', `/v1/contacts/${b.id}`)
    await a.get(`/v1/contacts?minPosition=${position}`)
    const watching = await a.connect()
    expect((await watching.ask('presence.subscribe', { contacts: true })).items).toEqual([offline(b)])
    expect(
      (await watching.ask('presence.subscribe', { userIds: [c.id], contacts: true })).items!.map(({ userId }) => userId).sort(),
    ).toEqual([b.id, c.id].sort())
    expect((await watching.ask('presence.subscribe', { userIds: [c.id] })).items).toEqual([offline(c)])
    await b.connect()
    await c.connect()
    await watching.until(() => told(watching, c).length === 1, 'c to be online')
    expect((await watching.ask('presence.subscribe', {})).items).toEqual([])
  })

  test('is told to those whose contact one is, unasked', async () => {
    const [a, b] = world().users('a', 'b')
    await a.group([b])
    const { position } = await a.write('PUT', `/v1/contacts/${b.id}`)
    await a.get(`/v1/contacts?minPosition=${position}`)
    const watching = await a.connect()
    await b.connect()
    await watching.until(() => told(watching, b).at(-1) === true, 'online')
  })

  test('of oneself is known', async () => {
    const user = world().user()
    const device = await user.connect()
    expect(await stateOf(device, user)).toEqual({ userId: user.id, online: true, lastSeenAt: null })
  })

  test('of devices: which are there, and when they were seen last', async () => {
    const [user, other] = world().users('a', 'b')
    await user.group([other])
    const watching = await other.connect()
    await watching.ask('presence.subscribe', { userIds: [user.id] })
    const phone = await user.connect({ deviceId: 'phone' })
    await goOffline(watching, user, phone)
    await user.connect({ deviceId: 'laptop' })
    const devices = async () =>
      (await user.get<{ items: { deviceId: string; online: boolean; lastSeenAt: string | null }[] }>('/v1/devices')).items
    // The list is a read model: it has the new device a moment after its hello.
    await expect.poll(async () => (await devices()).length, { timeout: 30_000 }).toBe(2)
    const items = await devices()
    expect(items.sort((a, b) => (a.deviceId < b.deviceId ? -1 : 1))).toEqual([
      { deviceId: 'laptop', online: true, lastSeenAt: null },
      { deviceId: 'phone', online: false, lastSeenAt: expect.stringMatching(/Z$/) },
    ])
  })
})
