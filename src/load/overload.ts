import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import type { Turns } from './turns.js'

const LOOK_EVERY_MS = 250
const RESOLUTION_MS = 10
/** Of the loop's delay: beyond it less heavy work is let in, and beyond the second callers are refused. */
const DELAY_MS_BUSY = 20
const DELAY_MS_OVERLOADED = 80
/** Of one core. A process that is late and uses less is kept waiting by others: to refuse its callers would not help. */
const CPU_SHARE_MIN = 0.6
/** Looks in a row after which it is no passing thing. */
const OVERLOADED_LOOKS = 4
const HEAVY_UNITS_MIN = 16
const HEAVY_UNITS_STEP = 32
/** Callers below are not refused, however busy the node is: a person who writes and reads. */
const REFUSED_UNITS_PER_SECOND_MIN = 50

/**
 * Watches how late the loop is, and how much waits. A node that is busy lets less heavy work in at once; one that is overloaded
 * refuses callers by what they have used in the last seconds, the costliest first, until it is on time again.
 */
export class Overload {
  readonly #turns: Turns
  readonly #bytesMax: number
  readonly #heavyUnitsMax: number
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  #timer: NodeJS.Timeout | undefined
  /** The most that a caller used a second, since the last look. */
  #highest = 0
  /** Callers who use more a second are refused. */
  #refusedAbove = Number.POSITIVE_INFINITY
  #overloadedLooks = 0
  #cpu = process.cpuUsage()
  #lookedAtMs = performance.now()

  constructor(turns: Turns, bytesMax: number) {
    this.#turns = turns
    this.#bytesMax = bytesMax
    this.#heavyUnitsMax = turns.heavyUnitsMax
  }

  start(): void {
    this.#histogram.enable()
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#histogram.disable()
  }

  get refusedAbove(): number {
    return this.#refusedAbove
  }

  /** Whether a caller who uses so much is one of those who go first. */
  refuses(unitsPerSecond: number): boolean {
    if (unitsPerSecond > this.#highest) this.#highest = unitsPerSecond
    return unitsPerSecond > this.#refusedAbove
  }

  #look(): void {
    const delayMs = Math.max(0, this.#histogram.percentile(90) / 1e6 - RESOLUTION_MS)
    this.#histogram.reset()
    this.#turns.releaseHeld()
    this.judge(delayMs, this.#cpuShare())
  }

  /** How much of a core this process has used since the last look. */
  #cpuShare(): number {
    const { user, system } = process.cpuUsage(this.#cpu)
    const now = performance.now()
    const share = (user + system) / 1_000 / Math.max(1, now - this.#lookedAtMs)
    this.#cpu = process.cpuUsage()
    this.#lookedAtMs = now
    return share
  }

  /** Draws the consequences of a delay of the loop, and of how much of a core was used meanwhile. */
  judge(delayMs: number, cpuShare: number): void {
    const isFull = this.#turns.waiting.bytes > this.#bytesMax / 2
    const isOverloaded = isFull || (delayMs > DELAY_MS_OVERLOADED && cpuShare > CPU_SHARE_MIN)
    this.#overloadedLooks = isOverloaded ? this.#overloadedLooks + 1 : 0
    const { heavyUnitsMax } = this.#turns
    this.#turns.heavyUnitsMax =
      delayMs > DELAY_MS_BUSY
        ? Math.max(HEAVY_UNITS_MIN, heavyUnitsMax * 0.7)
        : Math.min(this.#heavyUnitsMax, heavyUnitsMax + HEAVY_UNITS_STEP)
    if (this.#overloadedLooks >= OVERLOADED_LOOKS)
      this.#refusedAbove = Math.max(REFUSED_UNITS_PER_SECOND_MIN, Math.min(this.#refusedAbove, this.#highest) * 0.6)
    else if (delayMs < DELAY_MS_BUSY) {
      this.#refusedAbove *= 1.25
      if (this.#refusedAbove > 2 * this.#highest) this.#refusedAbove = Number.POSITIVE_INFINITY
    }
    this.#highest *= 0.9
  }
}
