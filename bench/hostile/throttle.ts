/** Turns for many who wait in line, so many a second. */
export class Throttle {
  readonly #waiting: (() => void)[] = []
  #perSecond: number | null = 0
  #permits = 0
  #filledAt = performance.now()

  constructor() {
    setInterval(() => this.#serve(), 10).unref()
  }

  /** Null: no turns are waited for. */
  set perSecond(value: number | null) {
    this.#perSecond = value
    this.#serve()
  }

  turn(): Promise<void> {
    if (this.#perSecond === null) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  #serve(): void {
    const now = performance.now()
    const perSecond = this.#perSecond ?? Infinity
    // What nobody has used is not saved up for longer than a tenth of a second.
    this.#permits = Math.min(this.#permits + (perSecond * (now - this.#filledAt)) / 1_000, Math.max(1, perSecond / 10))
    this.#filledAt = now
    while (this.#waiting.length > 0 && this.#permits >= 1) {
      this.#permits -= 1
      this.#waiting.shift()!()
    }
  }
}
