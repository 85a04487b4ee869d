import type { Logger } from './domain/logger.js'
import { withDeadline } from './domain/waits.js'

interface Step {
  name: string
  run: () => Promise<void> | void
  withinMs: number
}

/**
 * Ends what was started, the latest first, within one deadline for all of it. A step that fails, or takes longer than its share, is said
 * in the log and does not keep the next ones from being taken.
 */
export class Shutdown {
  readonly #logger: Logger
  readonly #steps: Step[] = []
  #running: Promise<void> | undefined
  #endAt = Infinity

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** Something was started, and this ends it. What is started while everything ends is ended at once. */
  add(name: string, withinMs: number, run: () => Promise<void> | void): void {
    this.#steps.push({ name, run, withinMs })
    if (this.#running) void (this.#running = this.#running.then(() => this.#runAll()))
  }

  get isRunning(): boolean {
    return this.#running !== undefined
  }

  /** How much is left of the time for everything. */
  get leftMs(): number {
    return Math.max(0, this.#endAt - performance.now())
  }

  /** Ends everything, once, however often it is called. Never rejects. */
  run(withinMs: number): Promise<void> {
    if (!this.#running) {
      this.#endAt = performance.now() + withinMs
      this.#running = this.#runAll()
    }
    return this.#running
  }

  async #runAll(): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) await this.#take(step)
  }

  async #take({ name, run, withinMs }: Step): Promise<void> {
    const shareMs = Math.min(withinMs, this.leftMs)
    try {
      await withDeadline(Promise.resolve().then(run), shareMs, () => new Error(`not done within ${Math.round(shareMs)} ms`))
    } catch (error) {
      this.#logger.warn({ step: name, reason: error instanceof Error ? error.message : String(error) }, 'stopping: this was left as it is')
    }
  }
}
