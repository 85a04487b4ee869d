/** What can be flushed at the end of a loop turn. */
export interface Flushable {
  flush(): void
}

/** Sockets of large audiences that are written to in one loop turn: a write is some 10 µs, and meanwhile nobody is read or answered. */
const LATER_AT_ONCE = 100

/**
 * Gathers the connections that have something to write, and lets each write once per loop turn: frames that come together
 * leave together. What goes to thousands leaves in parts, so that it holds up nobody else.
 */
export class Outbox {
  #due: Flushable[] = []
  /** Written to in parts, from `#laterAt` on; those that come meanwhile are the next ones. */
  #later: Flushable[] = []
  #laterAt = 0
  #nextLater: Flushable[] = []
  #isScheduled = false

  /** To be written to at the end of this loop turn. */
  add(connection: Flushable): void {
    this.#due.push(connection)
    this.#schedule()
  }

  /** To be written to when its part has its turn. */
  addLater(connection: Flushable): void {
    this.#nextLater.push(connection)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => this.#flush())
  }

  #flush(): void {
    this.#isScheduled = false
    const due = this.#due
    this.#due = []
    for (const connection of due) connection.flush()
    if (this.#laterAt === this.#later.length) this.#turnToNext()
    const part = this.#later.slice(this.#laterAt, this.#laterAt + LATER_AT_ONCE)
    this.#laterAt += part.length
    for (const connection of part) connection.flush()
    if (this.#laterAt < this.#later.length || this.#nextLater.length > 0) this.#schedule()
    else this.#turnToNext()
  }

  #turnToNext(): void {
    this.#later = this.#nextLater
    this.#nextLater = []
    this.#laterAt = 0
  }
}
