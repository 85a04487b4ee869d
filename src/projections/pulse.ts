import type { Logger } from '../domain/logger.js'

const LOOK_EVERY_MS = 1_000
const SILENCE_MS_MAX = 5_000

/** Asks the database again and again, and tells the operator, once each, when it does not answer and when it does again. */
export class Pulse {
  readonly #ask: () => Promise<unknown>
  readonly #logger: Logger
  #timer: NodeJS.Timeout | undefined
  #isAsking = false
  #isLost = false
  #isStopped = false

  constructor(ask: () => Promise<unknown>, logger: Logger) {
    this.#ask = ask
    this.#logger = logger
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), LOOK_EVERY_MS).unref()
  }

  stop(): void {
    this.#isStopped = true
    clearInterval(this.#timer)
  }

  /** Now, because somebody had trouble with it. */
  look(): void {
    if (this.#isAsking || this.#isStopped) return
    this.#isAsking = true
    const silence = setTimeout(() => this.#lost(`no answer for ${SILENCE_MS_MAX} ms`), SILENCE_MS_MAX).unref()
    void this.#ask()
      .then(
        () => this.#answered(),
        (error: unknown) => this.#lost(error instanceof Error ? error.message : String(error)),
      )
      .finally(() => {
        clearTimeout(silence)
        this.#isAsking = false
      })
  }

  #lost(reason: string): void {
    if (this.#isLost || this.#isStopped) return
    this.#isLost = true
    this.#logger.warn({ reason }, 'The database of the read models is lost; trying again')
  }

  #answered(): void {
    if (!this.#isLost || this.#isStopped) return
    this.#isLost = false
    this.#logger.info({}, 'The database of the read models is back')
  }
}
