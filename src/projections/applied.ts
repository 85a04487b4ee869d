import { setTimeout as delay } from 'node:timers/promises'
import type { Position } from '../domain/event-store.js'
import { unavailable } from '../domain/errors.js'
import { Conditions } from '../domain/waits.js'

/** How often a process that does not project looks at the checkpoint while somebody waits. */
const LOOK_INTERVAL_MS = 10

/** How far the read models are, and who waits for them to get further. */
export class Applied {
  readonly #look: () => Promise<Position>
  readonly #moved = new Conditions()
  #isLooking = false
  #position: Position = ''
  #waiting: Position[] = []
  /** This process projects, and says by itself how far it is. */
  isOwn = false
  /** Somebody began to wait. */
  onWaiting: () => void = () => {}

  /** `look`: reads the checkpoint; never rejects. */
  constructor(look: () => Promise<Position>) {
    this.#look = look
  }

  get position(): Position {
    return this.#position
  }

  /** Somebody waits for more than is applied. */
  get isAwaited(): boolean {
    return this.#waiting.some((position) => position > this.#position)
  }

  /** The tables are here now; also backwards, after a rebuild from the beginning. */
  set(position: Position): void {
    this.#position = position
    this.#moved.changed()
  }

  /** @throws {Refusal} unavailable when it takes longer than `timeoutMs`, or when this process stops */
  async reach(position: Position, timeoutMs: number): Promise<void> {
    if (position <= this.#position) return
    this.#waiting.push(position)
    this.onWaiting()
    void this.#lookWhileAwaited()
    try {
      if (!(await this.#moved.until(() => position <= this.#position, timeoutMs)))
        throw unavailable('The read models are not that far yet: try again.')
    } finally {
      this.#waiting.splice(this.#waiting.indexOf(position), 1)
    }
  }

  /** Who waits waits no longer. */
  endWaits(): void {
    this.#moved.end()
  }

  /** One look for all who wait. */
  async #lookWhileAwaited(): Promise<void> {
    if (this.#isLooking) return
    this.#isLooking = true
    while (this.isAwaited) {
      const position = this.isOwn ? this.#position : await this.#look()
      if (!this.isOwn && position !== this.#position) this.set(position)
      else await delay(LOOK_INTERVAL_MS)
    }
    this.#isLooking = false
  }
}
