import type { FastifyRateLimitStore, FastifyRateLimitStoreCtor } from '@fastify/rate-limit'

/** How many requests users make, over all nodes as far as this one knows. */
export interface RequestCounts {
  /** One more: how many there are in the window that runs, and for how many ms it runs yet. Never waits. */
  count(userId: string, windowMs: number): { current: number; ttl: number }
}

/** In the form in which the rate limit asks. */
export function rateLimitStoreOf(counts: RequestCounts): FastifyRateLimitStoreCtor {
  return class implements FastifyRateLimitStore {
    incr(userId: string, answer: (error: Error | null, result?: { current: number; ttl: number }) => void, windowMs: number): void {
      answer(null, counts.count(userId, windowMs))
    }

    child(): FastifyRateLimitStore {
      return this
    }
  }
}
