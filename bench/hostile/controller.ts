/** Holds hostile clients to what leaves a share of each core idle. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CoreMeter } from './cores.js'

const LOOK_EVERY_MS = 500
const BUSY_MAX = 0.8
const RATE_MIN = 1
const RATE_MAX = 1e6
/** Up slowly, down fast; nothing within this of the goal. */
const UP = 1.1
const DOWN = 0.8
const TOLERANCE = 0.03
const MEMORY = 0.6

export interface Held {
  /** Average over the whole time. */
  perSecond: number
  busiest: number
}

/** Calls `setRate` as often as it changes, until `signal`. */
export async function holdToIdleFifth(signal: AbortSignal, setRate: (perSecond: number) => void): Promise<Held> {
  const meter = new CoreMeter()
  let rate = 20
  let smooth = 0
  const sums = { rate: 0, busy: 0, looks: 0 }
  setRate(rate)
  for (;;) {
    await sleep(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
    if (signal.aborted) return { perSecond: sums.rate / sums.looks, busiest: sums.busy / sums.looks }
    const busy = meter.busiest()
    smooth = smooth * MEMORY + busy * (1 - MEMORY)
    if (smooth > BUSY_MAX) rate *= DOWN
    else if (smooth < BUSY_MAX - TOLERANCE) rate *= UP
    rate = Math.min(RATE_MAX, Math.max(RATE_MIN, rate))
    setRate(rate)
    sums.rate += rate
    sums.busy += busy
    sums.looks += 1
  }
}
