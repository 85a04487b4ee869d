import type { Position } from '../domain/event-store.js'
import { unavailable } from '../domain/errors.js'
import { Bell } from './bell.js'

/** How often a process that does not project looks at the checkpoint while somebody waits. */
const LOOK_INTERVAL_MS = 10

/** How far the read models are, and who waits for them to get further. */
export class Applied {
  readonly #look: () => Promise<Position>
  readonly #moved = new Bell()
  #looking: Promise<void> | undefined
  #position: Position = ''
  #waiting: Position[] = []
  /** This process projects, and says by itself how far it is. */
  isOwn = false
  /** Somebody began to wait. */
  onWaiting: () => void = () => {}

  /** `look`: reads the checkpoint. */
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
    this.#moved.ring()
  }

  /** @throws {Refusal} unavailable when it takes longer than `timeoutMs` */
  async reach(position: Position, timeoutMs: number): Promise<void> {
    if (position <= this.#position) return
    this.#waiting.push(position)
    this.onWaiting()
    try {
      const giveUpAt = performance.now() + timeoutMs
      while (position > this.#position) {
        const leftMs = giveUpAt - performance.now()
        if (leftMs <= 0) throw unavailable('The read models are not that far yet: try again.')
        await this.#nextMove(leftMs)
      }
    } finally {
      this.#waiting.splice(this.#waiting.indexOf(position), 1)
    }
  }

  async #nextMove(timeoutMs: number): Promise<void> {
    if (this.isOwn) return this.#moved.wait(timeoutMs)
    const before = this.#position
    // One look for all who wait.
    await (this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined
    }))
    if (this.#position === before) await this.#moved.wait(Math.min(timeoutMs, LOOK_INTERVAL_MS))
  }

  async #lookOnce(): Promise<void> {
    const position = await this.#look()
    if (!this.isOwn && position !== this.#position) this.set(position)
  }
}
