/** Waits that end: for an answer, or for something to become true. */
import { unavailable } from './errors.js'
import type { Position } from './event-store.js'

/** Settles as `work` does, or rejects with what `late` makes when that takes longer than `withinMs`. The work itself goes on, unheard. */
export function withDeadline<Value>(work: Promise<Value>, withinMs: number, late: () => Error): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), withinMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

interface Waiting {
  holds: () => boolean
  settle: (held: boolean) => void
}

/** Those who wait until a condition holds. Whoever may have made one hold says `changed`. */
export class Conditions {
  readonly #waiting = new Set<Waiting>()
  #isEnded = false

  /** True once the condition holds; false when it does not within `withinMs`, or when everything ends before. */
  until(holds: () => boolean, withinMs?: number): Promise<boolean> {
    if (holds()) return Promise.resolve(true)
    if (this.#isEnded) return Promise.resolve(false)
    return new Promise((resolve) => {
      const waiting: Waiting = {
        holds,
        settle: (held) => {
          clearTimeout(timer)
          this.#waiting.delete(waiting)
          resolve(held)
        },
      }
      const timer = withinMs === undefined ? undefined : setTimeout(() => waiting.settle(false), withinMs)
      this.#waiting.add(waiting)
    })
  }

  /** Looks at every condition again. */
  changed(): void {
    if (this.#waiting.size === 0) return
    for (const waiting of this.#waiting) if (waiting.holds()) waiting.settle(true)
  }

  /** From now on nobody waits. */
  end(): void {
    this.#isEnded = true
    for (const waiting of this.#waiting) waiting.settle(false)
  }
}

/** How long a read waits for what it reads from to be far enough. */
export const READ_WAIT_MS_MAX = 5_000

/** How far a feed is, and those who wait for it to get further. */
export class FeedProgress {
  readonly #moved = new Conditions()
  #position: Position = ''

  get position(): Position {
    return this.#position
  }

  moveTo(position: Position): void {
    this.#position = position
    this.#moved.changed()
  }

  /** Resolves when the feed has reached a position. @throws {Refusal} unavailable after `withinMs`, or when the feed ends */
  async reached(position: Position, withinMs = READ_WAIT_MS_MAX): Promise<void> {
    if (this.#position >= position) return
    if (!(await this.#moved.until(() => this.#position >= position, withinMs)))
      throw unavailable('The live feed of this node is not that far yet: try again.')
  }

  /** The feed moves no more. */
  end(): void {
    this.#moved.end()
  }
}
