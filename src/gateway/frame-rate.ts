/** A client may save up this many seconds of frames. */
const BURST_SECONDS = 5
const REFUSED_MAX = 1_000
const REFUSED_WINDOW_MS = 10_000

/** A token bucket over the frames of one connection; a client that never stops is given up. */
export class FrameRate {
  readonly #perMs: number
  readonly #burst: number
  readonly #now: () => number
  #tokens: number
  #filledAt: number
  /** When the last refused ones came, in turn; made when there is a first. */
  #refusedAt: Float64Array | undefined
  #refused = 0

  constructor(framesPerSecond: number, now: () => number = () => performance.now()) {
    this.#perMs = framesPerSecond / 1_000
    this.#burst = framesPerSecond * BURST_SECONDS
    this.#now = now
    this.#tokens = this.#burst
    this.#filledAt = now()
  }

  /** Whether one more frame is carried out, refused, or one too many. */
  take(): 'allowed' | 'limited' | 'close' {
    const now = this.#now()
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#filledAt) * this.#perMs)
    this.#filledAt = now
    if (this.#tokens >= 1) {
      this.#tokens -= 1
      return 'allowed'
    }
    return this.#refuse(now)
  }

  /** How long until one more is carried out. */
  get retryAfterMs(): number {
    return Math.max(1, Math.ceil((1 - this.#tokens) / this.#perMs))
  }

  #refuse(now: number): 'limited' | 'close' {
    this.#refusedAt ??= new Float64Array(REFUSED_MAX).fill(-Infinity)
    const place = this.#refused++ % REFUSED_MAX
    const isTooMuch = now - this.#refusedAt[place]! <= REFUSED_WINDOW_MS
    this.#refusedAt[place] = now
    return isTooMuch ? 'close' : 'limited'
  }
}
