import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { Load } from '../../src/load/load.js'
import { RedisLink } from '../../src/redis/link.js'
import { RedisSharedUse } from '../../src/redis/shared-use.js'
import { until } from '../gateway/presence-contract.js'
import { silent } from '../support/read-side.js'
import { type TestRedis, hasRedis, startTestRedis } from '../support/redis.js'
import { unique } from '../support/world.js'

describe.skipIf(!hasRedis)('what callers use, counted in Redis', () => {
  let redis: TestRedis
  let links: RedisLink[]

  beforeAll(async () => {
    redis = await startTestRedis()
    links = await Promise.all([1, 2].map(() => RedisLink.open({ url: redis.url, logger: silent, channels: ['test'] })))
  })
  afterEach(async () => {
    await redis.heal()
    await until(async () => links.every(({ isUp }) => isUp))
  })
  afterAll(async () => {
    await Promise.all(links.map((link) => link.close()))
    await redis.stop()
  })

  /** Their clock stands still: nothing comes back. */
  const twoNodes = () => links.map((link) => new Load({ sharedUse: new RedisSharedUse(link), now: () => 0 })) as [Load, Load]

  test('is charged on all nodes, with the answer to the own last request', async () => {
    const [linkOfOne, linkOfOther] = links.map((link) => new RedisSharedUse(link)) as [RedisSharedUse, RedisSharedUse]
    // Redis counts by the second: where one ends between the two requests, they are tried again.
    await until(async () => {
      const [one, other] = twoNodes()
      const user = unique('user')
      one.admit(one.ofUser(user), 400)
      await linkOfOne.add(`u:${user}`, 0)
      other.admit(other.ofUser(user), 1)
      await linkOfOther.add(`u:${user}`, 0)
      expect(one.ofUser(unique('another')).unitsLeft).toBe(1_000)
      return other.ofUser(user).unitsLeft === 599
    })
  })

  test('begins anew in the next second', async () => {
    const use = new RedisSharedUse(links[0]!)
    const account = `u:${unique('user')}`
    expect(await use.add(account, 7)).toBe(7)
    await until(async () => (await use.add(account, 0)) === 0)
  })

  test('goes on being charged on each node when Redis is gone', async () => {
    const [one] = twoNodes()
    await redis.kill()
    await until(async () => !links[0]!.isUp)
    const account = one.ofUser(unique('user'))
    one.admit(account, 10)
    await sleep(0)
    expect(account.unitsLeft).toBe(990)
  })
})
