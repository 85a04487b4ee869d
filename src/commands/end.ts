import type { BaseLogger } from 'pino'

/** Why the server ends: somebody said so, or it cannot go on. */
export type EndReason = { signal: NodeJS.Signals } | { error: unknown }

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

/** The first reason to end, from now on. Later ones change nothing: a signal that comes twice must not break the stop. */
export class End {
  readonly reason: Promise<EndReason>
  readonly #told = new AbortController()
  readonly #logger: Pick<BaseLogger, 'fatal'>
  #tell!: (reason: EndReason) => void

  constructor(logger: Pick<BaseLogger, 'fatal'>) {
    this.#logger = logger
    this.reason = new Promise((resolve) => {
      this.#tell = resolve
    })
    for (const signal of SIGNALS) process.on(signal, () => this.#end({ signal }))
    for (const event of ['uncaughtException', 'unhandledRejection'] as const) process.on(event, (error: unknown) => this.fail(error))
  }

  /** Aborts when there is a reason to end. */
  get signal(): AbortSignal {
    return this.#told.signal
  }

  /** Something has failed without which the server cannot go on. One line says what; the logger keeps back what an error must not show. */
  fail(error: unknown): void {
    if (this.#told.signal.aborted) return
    this.#logger.fatal({ err: error }, 'The server cannot go on and ends: start it again')
    this.#end({ error })
  }

  #end(reason: EndReason): void {
    this.#told.abort()
    this.#tell(reason)
  }
}
