import { setTimeout as sleep } from 'node:timers/promises'
import { StoreUnavailable } from '../domain/event-store.js'

const delayMsMin = 20
const delayMsMax = 2000

/** How long to wait before the n-th new try (0, 1, …): doubling, with full jitter, so that many processes don't come back in step. */
export function backoffMs(attempt: number): number {
  return delayMsMin + Math.random() * Math.min(delayMsMax, 50 * 2 ** Math.min(attempt, 16))
}

/** Waits; ends early and quietly when the signal aborts. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await sleep(ms, undefined, { signal }).catch(() => {})
}

/** Reads until the store answers; undefined when the signal aborts first. */
export async function persistently<T>(read: () => Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      return await abortable(read(), signal)
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error
      await pause(backoffMs(attempt), signal)
    }
  }
  return undefined
}

/** What the promise gives, or undefined as soon as the signal aborts: a reader that leaves does not wait for a database that hangs. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const leave = (): void => resolve(undefined)
    signal.addEventListener('abort', leave)
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}
