/** What can be flushed at the end of a loop turn. */
export interface Flushable {
  flush(): void
}

/** Gathers the connections that have something to write, and lets each write once per loop turn: frames that come together leave together. */
export class Outbox {
  #waiting: Flushable[] = []

  add(connection: Flushable): void {
    if (this.#waiting.length === 0) setImmediate(() => this.#flush())
    this.#waiting.push(connection)
  }

  #flush(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const connection of waiting) connection.flush()
  }
}
