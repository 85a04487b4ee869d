/** What the server is like from outside while the bench runs. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Convolog } from '../convolog.js'

const RSS_EVERY_MS = 250
const METRICS_EVERY_MS = 5_000
const METRICS_MS_MAX = 10_000

export class Watch {
  rssBytesMax = 0
  loopDelayMsMax = 0
  /** How often /metrics gave no answer. */
  unanswered = 0
  readonly #stopped = new AbortController()

  constructor(convolog: Convolog) {
    void this.#repeat(RSS_EVERY_MS, async () => {
      this.rssBytesMax = Math.max(this.rssBytesMax, convolog.program.rssBytesMax())
    })
    void this.#repeat(METRICS_EVERY_MS, () => this.#readMetrics(convolog.url))
  }

  stop(): void {
    this.#stopped.abort()
  }

  async #readMetrics(url: string): Promise<void> {
    try {
      const answer = await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(METRICS_MS_MAX) })
      const [, seconds = ''] = /^nodejs_eventloop_lag_max_seconds (\S+)$/m.exec(await answer.text()) ?? []
      this.loopDelayMsMax = Math.max(this.loopDelayMsMax, Number(seconds) * 1_000)
    } catch {
      this.unanswered += 1
    }
  }

  async #repeat(ms: number, work: () => Promise<void>): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await work()
      await sleep(ms, undefined, { signal: this.#stopped.signal }).catch(() => {})
    }
  }
}
