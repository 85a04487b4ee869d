import { type EventLoopUtilization, type IntervalHistogram, monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { ORDINARY_UNITS_PER_SECOND } from './costs.js'
import type { Turns } from './turns.js'

const LOOK_EVERY_MS = 250
const RESOLUTION_MS = 10
/** Of the loop's delay: beyond it less heavy work is let in, and beyond the second callers are refused. */
const DELAY_MS_BUSY = 20
const DELAY_MS_OVERLOADED = 80
/** Share of the time. A loop that is late but often idle is kept waiting by other processes; to refuse callers would not help. */
const UTILIZATION_MIN = 0.8
/** Looks in a row after which it is no passing thing. */
const OVERLOADED_LOOKS = 4
/** A look that finds the node on time lets a little more in: faster, and all come back at once and make it late again. */
const LET_IN_FACTOR = 1.1
const HEAVY_UNITS_MIN = 16
const HEAVY_UNITS_STEP = 8

/**
 * Watches how late the loop is, and how much waits. A node that is busy lets less heavy work in at once; one that is overloaded
 * refuses callers by what they have used in the last seconds, the costliest first, until it is on time again.
 */
export class Overload {
  readonly #turns: Turns
  readonly #bytesMax: number
  readonly #isGuarded: boolean
  readonly #heavyUnitsMax: number
  #histogram: IntervalHistogram | undefined
  #timer: NodeJS.Timeout | undefined
  /** The most that a caller used a second, since the last look. */
  #highest = 0
  /** Callers who use more a second are refused. */
  #refusedAbove = Number.POSITIVE_INFINITY
  #overloadedLooks = 0
  #utilization: EventLoopUtilization = performance.eventLoopUtilization()

  /** `isGuarded`: false refuses nobody, whatever the loop does. */
  constructor(turns: Turns, bytesMax: number, isGuarded: boolean) {
    this.#isGuarded = isGuarded
    this.#turns = turns
    this.#bytesMax = bytesMax
    this.#heavyUnitsMax = turns.heavyUnitsMax
  }

  start(): void {
    const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
    histogram.enable()
    this.#histogram = histogram
    this.#utilization = performance.eventLoopUtilization()
    this.#timer = setInterval(() => this.#look(histogram), LOOK_EVERY_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#histogram?.disable()
  }

  get refusedAbove(): number {
    return this.#refusedAbove
  }

  /** Whether a caller who uses so much is one of those who go first. */
  refuses(unitsPerSecond: number): boolean {
    if (unitsPerSecond > this.#highest) this.#highest = unitsPerSecond
    return unitsPerSecond > this.#refusedAbove
  }

  #look(histogram: IntervalHistogram): void {
    const delayMs = Math.max(0, histogram.percentile(90) / 1e6 - RESOLUTION_MS)
    histogram.reset()
    const before = this.#utilization
    this.#utilization = performance.eventLoopUtilization()
    if (this.#isGuarded) this.judge(delayMs, performance.eventLoopUtilization(this.#utilization, before).utilization)
    this.#turns.refuseLate()
    // A turn that is held because this node is late would only let more in.
    if (delayMs < DELAY_MS_BUSY) this.#turns.releaseHeld()
  }

  /** Draws the consequences of a delay of the loop, and of which part of the time it was not idle. */
  judge(delayMs: number, utilization: number): void {
    const isFull = this.#turns.waiting.bytes > this.#bytesMax / 2
    const isOverloaded = isFull || (delayMs > DELAY_MS_OVERLOADED && utilization > UTILIZATION_MIN)
    this.#overloadedLooks = isOverloaded ? this.#overloadedLooks + 1 : 0
    const { heavyUnitsMax } = this.#turns
    this.#turns.heavyUnitsMax =
      delayMs > DELAY_MS_BUSY
        ? Math.max(HEAVY_UNITS_MIN, heavyUnitsMax * 0.7)
        : Math.min(this.#heavyUnitsMax, heavyUnitsMax + HEAVY_UNITS_STEP)
    if (this.#overloadedLooks >= OVERLOADED_LOOKS)
      this.#refusedAbove = Math.max(ORDINARY_UNITS_PER_SECOND, Math.min(this.#refusedAbove, this.#highest) * 0.6)
    else if (delayMs < DELAY_MS_BUSY) {
      this.#refusedAbove *= LET_IN_FACTOR
      if (this.#refusedAbove > 2 * this.#highest) this.#refusedAbove = Number.POSITIVE_INFINITY
    }
    this.#highest *= 0.9
  }
}
