import { StoreUnavailable } from '../../src/domain/event-store.js'
import { unavailable } from '../../src/domain/errors.js'
import type { Clock } from './clock.js'
import type { Random } from './random.js'

/** What befalls one node and what it depends on. Everything is in ms of the clock. */
export class Weather {
  readonly #clock: Clock
  readonly #random: Random
  /** No fault and hardly a delay any more: what was begun has to end. */
  isCalm = false
  /** The node is gone: whatever it asks for is answered by nobody. */
  isDead = false
  /** How likely an answer takes long. */
  slowness: number
  logAwayUntil = 0
  tablesAwayUntil = 0
  feedStandsUntil = 0
  /** Reads of the log, or of the tables, take so long until then. */
  slowReadsUntil = 0

  constructor(clock: Clock, random: Random, slowness: number) {
    this.#clock = clock
    this.#random = random
    this.slowness = slowness
  }

  get isLogAway(): boolean {
    return !this.isCalm && this.#clock.now < this.logAwayUntil
  }

  /** Half of a round trip. */
  travel(isRead = false): Promise<void> {
    return this.#clock.delay(this.#travelMs(isRead))
  }

  #travelMs(isRead: boolean): number {
    const random = this.#random
    if (this.isCalm) return random.between(0.05, 0.5)
    if (isRead && this.#clock.now < this.slowReadsUntil) return random.between(50, 2_000)
    const luck = random.next()
    if (luck > this.slowness) return random.between(0.05, 2)
    if (luck > this.slowness * 0.3) return random.between(2, 40)
    return luck > this.slowness * 0.05 ? random.between(40, 400) : random.between(400, 3_000)
  }

  /** @throws {StoreUnavailable} */
  requireLog(): void {
    if (this.isDead || this.isLogAway || (!this.isCalm && this.#random.chance(0.002))) throw new StoreUnavailable('the log is away')
  }

  /** @throws {Refusal} unavailable */
  requireTables(): void {
    if (this.isDead || (!this.isCalm && (this.#clock.now < this.tablesAwayUntil || this.#random.chance(0.002))))
      throw unavailable('The read models are away.')
  }

  /** How long the feed takes for the next events. */
  async feedLag(signal: AbortSignal): Promise<void> {
    const { now } = this.#clock
    const standsMs = this.isCalm ? 0 : Math.max(0, this.feedStandsUntil - now)
    const lagMs = this.isCalm ? 0.1 : this.#random.chance(this.slowness) ? this.#random.between(2, 150) : this.#random.between(0.05, 3)
    await this.#clock.delay(standsMs + lagMs, signal)
  }

  chance(probability: number): boolean {
    return !this.isCalm && this.#random.chance(probability)
  }

  between(min: number, max: number): number {
    return this.#random.between(min, max)
  }
}
