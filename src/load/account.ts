/** Seconds of its rate that a caller may save up. */
const BURST_SECONDS = 1
/** Over how long the recent use of a caller is remembered. */
const RECENT_MS = 5_000

/**
 * The budget of one caller: units that come back at a steady rate. Work is let in as long as any are left and is then charged
 * whole, so that a single request may cost more than the budget holds: the caller waits until the debt is paid.
 */
export class Account {
  readonly key: string
  readonly isUser: boolean
  readonly unitsPerSecond: number
  readonly #now: () => number
  #units: number
  #filledAtMs: number
  #recentUnits = 0
  #recentAtMs: number
  /** Of the last hello: the next one is weighed by it before anything was looked up. */
  conversations = 0

  constructor(key: string, isUser: boolean, unitsPerSecond: number, now: () => number) {
    this.key = key
    this.isUser = isUser
    this.unitsPerSecond = unitsPerSecond
    this.#now = now
    this.#units = unitsPerSecond * BURST_SECONDS
    this.#filledAtMs = this.#recentAtMs = now()
  }

  /** Units that are left; below 0 where the caller is in debt. */
  get unitsLeft(): number {
    this.#fill(this.#now())
    return this.#units
  }

  /** How long until the caller may go on. */
  get retryAfterMs(): number {
    return Math.max(1, Math.ceil(((1 - this.unitsLeft) * 1_000) / this.unitsPerSecond))
  }

  /** In how many seconds all units are back. */
  get secondsToFull(): number {
    return Math.max(0, Math.ceil((this.unitsPerSecond * BURST_SECONDS - this.unitsLeft) / this.unitsPerSecond))
  }

  /** Takes units off the budget, whether they are there or not. */
  charge(units: number): void {
    const now = this.#now()
    this.#fill(now)
    this.#units -= units
    this.#note(units, now)
  }

  /** Counts what the caller makes the node do, without taking it off the budget. */
  note(units: number): void {
    this.#note(units, this.#now())
  }

  #note(units: number, now: number): void {
    this.#recentUnits = this.#recentUnits * Math.exp((this.#recentAtMs - now) / RECENT_MS) + units
    this.#recentAtMs = now
  }

  /** Units a second over the last seconds, the last ones counting most. */
  get recentUnitsPerSecond(): number {
    return (this.#recentUnits * Math.exp((this.#recentAtMs - this.#now()) / RECENT_MS) * 1_000) / RECENT_MS
  }

  #fill(now: number): void {
    this.#units = Math.min(this.unitsPerSecond * BURST_SECONDS, this.#units + ((now - this.#filledAtMs) * this.unitsPerSecond) / 1_000)
    this.#filledAtMs = now
  }
}
