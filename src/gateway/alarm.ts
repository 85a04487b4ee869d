/** A timer stands still while the machine sleeps and does not hear of a clock that jumps: the clock is looked at so often. */
const LOOK_EVERY_MS = 60_000

/** Rings once, when its time has come by the clock. */
export class Alarm {
  readonly at: number
  readonly #ring: () => void
  #timer: NodeJS.Timeout

  /** `at`: in ms since 1970. */
  constructor(at: number, ring: () => void) {
    this.at = at
    this.#ring = ring
    this.#timer = this.#set()
  }

  /** It does not ring any more. */
  stop(): void {
    clearTimeout(this.#timer)
  }

  #set(): NodeJS.Timeout {
    const leftMs = Math.max(0, this.at - Date.now())
    if (leftMs <= LOOK_EVERY_MS) return setTimeout(this.#ring, leftMs)
    return setTimeout(() => (this.#timer = this.#set()), LOOK_EVERY_MS)
  }
}
