import { LRUCache } from 'lru-cache'
import type { RequestCounts } from '../api/request-counts.js'
import { requestsKey } from './keys.js'
import type { RedisLink } from './link.js'

const USERS_MAX = 20_000

interface Window {
  endsAt: number
  here: number
  /** As the last answer of Redis had it. */
  everywhere: number
}

/**
 * Counted here at once and in Redis beside it, whose answer counts from the next request on: no request waits for Redis,
 * and without it each node limits for itself.
 */
export class RedisRequestCounts implements RequestCounts {
  readonly #link: RedisLink
  readonly #windows = new LRUCache<string, Window>({ max: USERS_MAX })

  constructor(link: RedisLink) {
    this.#link = link
  }

  count(userId: string, windowMs: number): { current: number; ttl: number } {
    const now = Date.now()
    let window = this.#windows.get(userId)
    if (!window || window.endsAt <= now) this.#windows.set(userId, (window = { endsAt: now + windowMs, here: 0, everywhere: 0 }))
    window.here += 1
    window.everywhere += 1
    void this.#share(userId, window, windowMs)
    return { current: Math.max(window.here, window.everywhere), ttl: window.endsAt - now }
  }

  async #share(userId: string, window: Window, windowMs: number): Promise<void> {
    try {
      const [[count, ttl]] = (await this.#link.batch(({ script }) => script('count', [requestsKey(userId)], [windowMs]))) as [
        [number, number],
      ]
      window.everywhere = Math.max(window.everywhere, count)
      // Windows of one user end together on all nodes.
      if (ttl > 0) window.endsAt = Math.min(window.endsAt, Date.now() + ttl)
    } catch {
      // Counted here.
    }
  }
}
