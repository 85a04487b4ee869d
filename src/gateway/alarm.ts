/** Beyond that a timer of Node.js goes off at once. */
const TIMER_MS_MAX = 2 ** 31 - 1

/** Rings once, when its time has come, however far off: a timer reaches 24.8 days, so it is set again until then. */
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
    if (leftMs <= TIMER_MS_MAX) return setTimeout(this.#ring, leftMs)
    return setTimeout(() => (this.#timer = this.#set()), TIMER_MS_MAX)
  }
}
