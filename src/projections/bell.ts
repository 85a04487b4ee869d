/** Wakes whoever waits; a ring that nobody waits for is forgotten, so look at the condition first. */
export class Bell {
  readonly #waiting = new Set<() => void>()

  /** Resolves at the next ring, or after `timeoutMs`. */
  wait(timeoutMs?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => wake(), timeoutMs)
      const wake = () => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        resolve()
      }
      this.#waiting.add(wake)
    })
  }

  ring(): void {
    for (const wake of this.#waiting) wake()
  }
}
