import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { OnlineDevices, OnlineState, Session } from '../../src/gateway/online-devices.js'
import { unique } from '../support/world.js'

/** Short, so that a test waits for it. */
export const GRACE_MS = 500

/** What keeps who is online; nodes of one harness share it. */
export interface OnlineHarness {
  /** As many as there are nodes, at most two. */
  nodes: OnlineDevices[]
  close(): Promise<void>
}

type Change = [userId: string, online: boolean]

const session = (userId: string, deviceId = 'phone'): Session => ({ userId, deviceId, sessionId: unique('session') })

/** What holds for one node in memory and for many in Redis alike. */
export function onlineDevicesContract(name: string, open: () => Promise<OnlineHarness>): void {
  describe(`${name}:`, () => {
    let harness: OnlineHarness
    /** On the first node, and on the last. */
    let here: OnlineDevices
    let there: OnlineDevices
    let told: Change[]
    let toldThere: Change[]

    beforeEach(async () => {
      harness = await open()
      here = harness.nodes[0]!
      there = harness.nodes.at(-1)!
      told = []
      toldThere = []
      there.onChange = (userId, { online }) => void toldThere.push([userId, online])
      here.onChange = (userId, { online }) => {
        told.push([userId, online])
        if (here === there) toldThere.push([userId, online])
      }
    })
    afterEach(() => harness.close())

    const stateOf = async (node: OnlineDevices, userId: string): Promise<OnlineState> => (await node.find([userId]))[0]!
    const untilOnline = (userId: string, online: boolean) => until(async () => (await stateOf(there, userId)).online === online)

    test('who was never here is offline, and was never seen', async () => {
      expect(await here.find([unique('stranger'), unique('stranger')])).toEqual([
        { online: false, lastSeenAt: null },
        { online: false, lastSeenAt: null },
      ])
      expect(await here.findDevices(unique('stranger'), ['phone'])).toEqual([{ online: false, lastSeenAt: null }])
    })

    test('a user with a socket is online, on every node, and all are told once', async () => {
      const user = unique('user')
      here.connected(session(user))
      here.connected(session(user, 'tablet'))
      await untilOnline(user, true)
      await until(async () => toldThere.length > 0)
      await sleep(50)
      expect(told).toEqual([[user, true]])
      expect(toldThere).toEqual([[user, true]])
      expect(await stateOf(here, user)).toEqual({ online: true, lastSeenAt: null })
    })

    test('answers come in the order asked', async () => {
      const [one, other] = [unique('user'), unique('user')]
      here.connected(session(one))
      await untilOnline(one, true)
      expect((await there.find([other, one, other])).map(({ online }) => online)).toEqual([false, true, false])
    })

    test('whose last socket closes is online for the grace, then offline with the time at which it closed', async () => {
      const user = unique('user')
      const phone = session(user)
      here.connected(phone)
      await untilOnline(user, true)
      const closedAt = Date.now()
      here.disconnected(phone)
      expect(await stateOf(there, user)).toEqual({ online: true, lastSeenAt: null })
      await untilOnline(user, false)
      expect(Date.now() - closedAt).toBeGreaterThanOrEqual(GRACE_MS - 20)
      const { lastSeenAt } = await stateOf(there, user)
      expect(lastSeenAt).toBeGreaterThanOrEqual(closedAt - 20)
      expect(lastSeenAt).toBeLessThanOrEqual(Date.now() - GRACE_MS + 20)
      await until(async () => toldThere.length === 2)
      expect(told).toEqual([
        [user, true],
        [user, false],
      ])
      expect(toldThere).toEqual([
        [user, true],
        [user, false],
      ])
    })

    test('who comes back within the grace was never away, also on another node', async () => {
      const user = unique('user')
      const phone = session(user)
      here.connected(phone)
      await untilOnline(user, true)
      here.disconnected(phone)
      there.connected(session(user))
      await sleep(GRACE_MS * 3)
      expect(await stateOf(here, user)).toEqual({ online: true, lastSeenAt: null })
      expect(told).toEqual([[user, true]])
      expect(toldThere).toEqual([[user, true]])
    })

    test('with one of two devices left a user is online, and the other device is not', async () => {
      const user = unique('user')
      const [phone, tablet] = [session(user, 'phone'), session(user, 'tablet')]
      here.connected(phone)
      there.connected(tablet)
      await until(async () => (await here.findDevices(user, ['phone', 'tablet'])).every(({ online }) => online))
      here.disconnected(phone)
      await until(async () => !(await there.findDevices(user, ['phone']))[0]!.online)
      const [first, second, unknown] = await there.findDevices(user, ['phone', 'tablet', 'watch'])
      expect(first).toEqual({ online: false, lastSeenAt: expect.any(Number) })
      expect(second).toEqual({ online: true, lastSeenAt: null })
      expect(unknown).toEqual({ online: false, lastSeenAt: null })
      expect((await stateOf(here, user)).online).toBe(true)
      expect(told).toEqual([[user, true]])
    })

    test('a device whose newer connection is here stays online when the older one closes', async () => {
      const user = unique('user')
      const [older, newer] = [session(user), session(user)]
      here.connected(older)
      await untilOnline(user, true)
      here.connected(newer)
      here.disconnected(older)
      await sleep(GRACE_MS * 3)
      expect((await stateOf(there, user)).online).toBe(true)
      here.disconnected(newer)
      await untilOnline(user, false)
      await until(async () => told.length >= 2)
      expect(told).toEqual([
        [user, true],
        [user, false],
      ])
    })

    test('many users come, are found and go', async () => {
      const sessions = Array.from({ length: 1_200 }, () => session(unique('one-of-many')))
      for (const one of sessions) here.connected(one)
      const users = sessions.map(({ userId }) => userId)
      await until(async () => (await there.find(users)).every(({ online }) => online))
      for (const one of sessions) here.disconnected(one)
      await until(async () => (await there.find(users)).every(({ online, lastSeenAt }) => !online && lastSeenAt !== null))
      await until(async () => toldThere.length === 2 * users.length)
    })
  })
}

/** Asks again until it is so. */
export async function until(probe: () => Promise<boolean>, patienceMs = 10_000): Promise<void> {
  const giveUpAt = performance.now() + patienceMs
  while (!(await probe())) {
    if (performance.now() > giveUpAt) throw new Error('it did not become so')
    await sleep(10)
  }
}
