import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { OnlineDevices, Session } from '../../src/gateway/online-devices.js'
import { channelsOf } from '../../src/redis/keys.js'
import { RedisLink } from '../../src/redis/link.js'
import { RedisOnlineDevices } from '../../src/redis/online-devices.js'
import { RedisSignals } from '../../src/redis/signals.js'
import { GRACE_MS, onlineDevicesContract, until } from '../gateway/presence-contract.js'
import { silent } from '../support/read-side.js'
import { type TestRedis, hasRedis, startTestRedis } from '../support/redis.js'
import { unique } from '../support/world.js'

describe.skipIf(!hasRedis)('in Redis', () => {
  let redis: TestRedis
  const said: string[] = []

  beforeAll(async () => {
    redis = await startTestRedis()
  })
  afterEach(() => redis.heal())
  afterAll(() => redis.stop())

  /** A node as far as presence goes. `die`: without a word, as when it is killed. */
  async function openNode() {
    const nodeId = randomUUID()
    const logger = {
      ...silent,
      warn: (_: object, text: string) => void said.push(text),
      info: (_: object, text: string) => void said.push(text),
    }
    const link = await RedisLink.open({ url: redis.url, logger, channels: channelsOf(nodeId) })
    const signals = new RedisSignals(link, nodeId)
    const online = new RedisOnlineDevices({ link, signals, nodeId, logger, graceMs: GRACE_MS, connectionsPerUserMax: 20 })
    await online.start()
    return {
      link,
      signals,
      online,
      die: () => link.close(),
      close: async () => {
        await online.stop()
        await link.close()
      },
    }
  }

  const session = (userId: string, deviceId = 'phone'): Session => ({ userId, deviceId, sessionId: unique('session') })
  const isOnline = async (node: { online: OnlineDevices }, userId: string) => (await node.online.find([userId]))[0]!.online
  const replacedOn = ({ online }: { online: OnlineDevices }) => {
    const sessions: string[] = []
    online.onReplaced = ({ sessionId }) => void sessions.push(sessionId)
    return sessions
  }

  onlineDevicesContract('who is online, on two nodes', async () => {
    const nodes = [await openNode(), await openNode()]
    return { nodes: nodes.map(({ online }) => online), close: async () => void (await Promise.all(nodes.map((node) => node.close()))) }
  })

  test('the users of a node that is killed are offline when its signs of life have run out, and all are told', {
    timeout: 90_000,
  }, async () => {
    const [node, other] = [await openNode(), await openNode()]
    const [user, both] = [unique('user'), unique('user')]
    const told: unknown[] = []
    other.online.onChange = (userId, { online, lastSeenAt }) => void told.push([userId, online, lastSeenAt !== null])
    node.online.connected(session(user))
    node.online.connected(session(both))
    other.online.connected(session(both, 'tablet'))
    await until(async () => (await isOnline(other, user)) && (await isOnline(other, both)))
    await node.die()
    await until(async () => !(await isOnline(other, user)), 15_000)
    await until(async () => told.length === 3, 10_000)
    expect(told.at(-1)).toEqual([user, false, true])
    expect(await isOnline(other, both)).toBe(true)
    expect((await other.online.find([user]))[0]!.lastSeenAt).not.toBeNull()
    await other.close()
  })

  test('a device that connects to another node takes the place of its older connection', async () => {
    const [node, other] = [await openNode(), await openNode()]
    const [replaced, replacedThere] = [replacedOn(node), replacedOn(other)]
    const user = unique('user')
    const [older, newer] = [session(user), session(user)]
    node.online.connected(older)
    await until(() => isOnline(other, user))
    other.online.connected(newer)
    await until(async () => replaced.length > 0)
    expect(replaced).toEqual([older.sessionId])
    expect(replacedThere).toEqual([])
    await Promise.all([node.close(), other.close()])
  })

  test('of more than 20 connections of a user over two nodes the oldest is closed', async () => {
    const [node, other] = [await openNode(), await openNode()]
    const replaced = replacedOn(node)
    const user = unique('user')
    const sessions = Array.from({ length: 21 }, (_, i) => session(user, `device-${i}`))
    for (const [i, one] of sessions.entries()) {
      ;(i % 2 === 0 ? node : other).online.connected(one)
      await until(async () => (await other.online.findDevices(user, [one.deviceId]))[0]!.online)
    }
    await until(async () => replaced.length > 0)
    expect(replaced).toEqual([sessions[0]!.sessionId])
    await Promise.all([node.close(), other.close()])
  })

  test('what Redis forgets is written anew', { timeout: 90_000 }, async () => {
    const [node, other] = [await openNode(), await openNode()]
    const users = Array.from({ length: 700 }, () => unique('user'))
    for (const user of users) node.online.connected(session(user))
    await until(async () => (await other.online.find(users)).every(({ online }) => online))
    await redis.flush()
    await until(async () => (await other.online.find(users)).every(({ online }) => online))
    await Promise.all([node.close(), other.close()])
  })

  test('without Redis a question is refused as temporary, and what happened meanwhile is known when it is back', {
    timeout: 90_000,
  }, async () => {
    const [node, other] = [await openNode(), await openNode()]
    const [stays, goes, comes] = [unique('stays'), unique('goes'), unique('comes')]
    const going = session(goes)
    let doubts = 0
    other.online.onDoubt = () => {
      doubts += 1
    }
    node.online.connected(session(stays))
    node.online.connected(going)
    await until(async () => (await isOnline(other, stays)) && (await isOnline(other, goes)))
    said.length = 0
    await redis.kill()
    await until(() =>
      other.online.find([stays]).then(
        () => false,
        () => true,
      ),
    )
    await expect(other.online.find([stays])).rejects.toMatchObject({ code: 'unavailable' })
    await expect(other.online.findDevices(stays, ['phone'])).rejects.toMatchObject({ code: 'unavailable' })
    node.online.disconnected(going)
    node.online.connected(session(comes))
    await redis.restart()
    await until(async () => (await isOnline(other, stays).catch(() => false)) && (await isOnline(other, comes)))
    expect(await isOnline(other, goes)).toBe(false)
    await until(async () => doubts === 1)
    expect(said.filter((text) => text.startsWith('Redis is lost'))).toHaveLength(2)
    expect(said.filter((text) => text === 'Redis is back')).toHaveLength(2)
    await Promise.all([node.close(), other.close()])
  })

  test('a Redis that says nothing is given up within seconds, and taken back when it answers', { timeout: 90_000 }, async () => {
    const node = await openNode()
    const user = unique('user')
    node.online.connected(session(user))
    await until(() => isOnline(node, user))
    redis.freeze()
    await expect(node.online.find([user])).rejects.toMatchObject({ code: 'unavailable' })
    await until(async () => !node.link.isUp)
    // Now it is not even asked: the refusal is there before anything else has its turn.
    const refused = node.online.find([user]).catch(({ code }: { code: string }) => code)
    expect(await Promise.race([refused, sleep(0, 'later')])).toBe('unavailable')
    redis.thaw()
    await until(() => isOnline(node, user).catch(() => false), 20_000)
    await node.close()
  })

  test('every key runs out by itself', async () => {
    const node = await openNode()
    const user = unique('user')
    const phone = session(user)
    node.online.connected(phone)
    await until(() => isOnline(node, user))
    node.online.disconnected(phone)
    await until(async () => !(await isOnline(node, user)))
    node.online.connected(session(user, 'tablet'))
    await until(() => isOnline(node, user))
    const keys = await redis.keys()
    expect([...keys.keys()].map((key) => key.split(':').slice(0, 2).join(':')).sort()).toEqual(
      expect.arrayContaining(['convolog:last-seen', 'convolog:node', 'convolog:node-sessions', 'convolog:nodes', 'convolog:route']),
    )
    expect([...keys].filter(([, ttl]) => ttl < 0)).toEqual([])
    await node.close()
  })
})
