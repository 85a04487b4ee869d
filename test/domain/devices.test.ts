import { describe, expect, test, vi } from 'vitest'
import { userStream } from '../../src/domain/ids.js'
import { DEVICES_MAX } from '../../src/domain/user/user.js'
import { Users } from '../../src/domain/users.js'
import { InMemoryEventStore } from '../support/in-memory-event-store.js'
import { silent } from '../support/read-side.js'

const snapshots = { load: async () => undefined, save: async () => {}, discard: async () => {} }
const requester = { actor: { userId: 'alice' }, correlationId: 'test' }
const T = 1_700_000_000_000

/** Two nodes on one log, the first with a clock that is 10 s ahead. What is written reaches a node when it follows. */
function twoNodes() {
  const store = new InMemoryEventStore()
  const clock = { ms: T }
  const node = (aheadMs: number) => {
    const users = new Users({ store, snapshots, logger: silent, cacheWeightMax: 1_000, isShared: true, now: () => clock.ms + aheadMs })
    const follow = async () => {
      for (const event of (await store.readStream(userStream('alice'), { limit: 100 })).events) users.follow('alice', event)
    }
    const isRefused = async (issuedAt: number) => issuedAt <= ((await users.devices.refusedUpTo('alice', 'phone')) ?? 0)
    return { users, devices: users.devices, follow, isRefused }
  }
  return { ahead: node(10_000), right: node(0), clock, store }
}

describe('two nodes whose clocks differ', () => {
  test('refuse a token that was shown to one before the other deleted the device', async () => {
    const { ahead, right, clock } = twoNodes()
    await ahead.devices.use('alice', 'phone', T + 10_000, requester)
    clock.ms += 1_000
    await right.devices.revoke('alice', 'phone', requester)
    expect(await right.isRefused(T + 10_000)).toBe(false)
    await ahead.follow()
    await vi.waitFor(async () => expect(await ahead.isRefused(T + 10_000)).toBe(true))
    await right.follow()
    expect(await right.isRefused(T + 10_000)).toBe(true)
    expect(await right.isRefused(T + 10_001)).toBe(false)
  })

  test('accept a token that was shown after the deletion, on a node that its feed has not reached', async () => {
    const { ahead, right, store } = twoNodes()
    await ahead.devices.use('alice', 'phone', T - 5_000, requester)
    await right.devices.revoke('alice', 'phone', requester)
    // The node looks at the end of the stream when it notes a newer token.
    void ahead.devices.use('alice', 'phone', T + 1, requester)
    await vi.waitFor(async () => expect((await ahead.users.load('alice')).revision).toBe(2))
    await ahead.follow()
    await right.follow()
    expect(await right.isRefused(T + 1)).toBe(false)
    expect((await store.readStream(userStream('alice'), { limit: 100 })).events.map(({ type }) => type)).toEqual([
      'DeviceSeen',
      'DeviceRevoked',
      'DeviceSeen',
    ])
  })

  test('issue a token that works at once, whichever of them deleted the device', async () => {
    for (const [deleter, issuer] of [
      ['ahead', 'right'],
      ['right', 'ahead'],
    ] as const) {
      const nodes = twoNodes()
      await nodes[issuer].users.load('alice')
      await nodes[deleter].devices.revoke('alice', 'phone', requester)
      for (const deviceId of ['phone', undefined]) {
        const issuedAt = await nodes[issuer].devices.issueTime('alice', deviceId)
        expect(await nodes[deleter].isRefused(issuedAt)).toBe(false)
      }
    }
  })
})

test('of a full list the device leaves that was offline longest', async () => {
  const asked: number[] = []
  const presence = {
    findDevices: async (_userId: string, deviceIds: readonly string[]) => {
      asked.push(deviceIds.length)
      return deviceIds.map((id) => ({ online: id === 'd0', lastSeenAt: id === 'd0' ? null : id === 'd5' ? 1 : 2 }))
    },
  }
  const users = new Users({ store: new InMemoryEventStore(), snapshots, logger: silent, cacheWeightMax: 100_000, presence })
  for (let n = 0; n < DEVICES_MAX; n += 1) await users.devices.use('alice', `d${n}`, T, requester)
  expect(asked).toEqual([])
  await users.devices.use('alice', 'phone', T, requester)
  const { state } = await users.load('alice')
  expect([state.devices.size, state.devices.has('d5'), state.devices.has('phone')]).toEqual([DEVICES_MAX, false, true])
  expect(asked).toEqual([DEVICES_MAX])
  expect(await users.devices.refusedUpTo('alice', 'd5')).toBeUndefined()
})
