import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RedisLink } from '../../src/redis/link.js'
import { RedisRequestCounts } from '../../src/redis/request-counts.js'
import { until } from '../gateway/presence-contract.js'
import { silent } from '../support/read-side.js'
import { type TestRedis, hasRedis, startTestRedis } from '../support/redis.js'
import { unique } from '../support/world.js'

const WINDOW_MS = 1_000

describe.skipIf(!hasRedis)('requests that are counted in Redis', () => {
  let redis: TestRedis
  let links: RedisLink[]

  beforeAll(async () => {
    redis = await startTestRedis()
    links = await Promise.all([1, 2].map(() => RedisLink.open({ url: redis.url, logger: silent, channels: ['test'] })))
  })
  afterAll(async () => {
    await Promise.all(links.map((link) => link.close()))
    await redis.stop()
  })

  const twoNodes = () => links.map((link) => new RedisRequestCounts(link)) as [RedisRequestCounts, RedisRequestCounts]

  test('count over all nodes, and from one on in the next window', async () => {
    const [one, other] = twoNodes()
    const user = unique('user')
    for (let i = 0; i < 50; i += 1) one.count(user, WINDOW_MS)
    // What others have counted is known with the answer to one's own last request.
    await sleep(100)
    other.count(user, WINDOW_MS)
    await sleep(100)
    expect(other.count(user, WINDOW_MS)).toEqual({ current: 52, ttl: expect.any(Number) })
    expect(one.count(unique('another'), WINDOW_MS).current).toBe(1)
    await sleep(WINDOW_MS)
    expect(other.count(user, WINDOW_MS).current).toBe(1)
  })

  test('go on being counted on each node when Redis is gone', async () => {
    const [one] = twoNodes()
    await redis.kill()
    await until(async () => !links[0]!.isUp)
    const user = unique('user')
    for (let i = 0; i < 9; i += 1) one.count(user, WINDOW_MS)
    expect(one.count(user, WINDOW_MS).current).toBe(10)
    await redis.restart()
  })
})
