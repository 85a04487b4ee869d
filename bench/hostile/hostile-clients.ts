/** All hostile clients of one process, and what they were answered. */
import { Attacker } from './attacker.js'
import { kinds } from './kinds.js'
import type { HostileCounts, HostileJob, HostileReport } from './messages.js'
import { Throttle } from './throttle.js'

export class HostileClients {
  readonly #counts: HostileCounts = {}
  readonly #throttle = new Throttle()

  constructor({ clients, scene }: HostileJob) {
    for (const client of clients) {
      const counts = (this.#counts[client.kind] ??= {})
      const count = (code: string) => {
        counts[code] = (counts[code] ?? 0) + 1
      }
      const { lanes, attack } = kinds[client.kind]!
      const attacker = new Attacker({ client, scene, throttle: this.#throttle, count })
      for (let lane = 0; lane < lanes; lane++) void forEver(() => attack(attacker, lane), count)
    }
  }

  setRate(perSecond: number | null): void {
    this.#throttle.perSecond = perSecond
  }

  report(): HostileReport {
    return { role: 'hostile', counts: this.#counts }
  }
}

async function forEver(attack: () => Promise<void>, count: (code: string) => void): Promise<void> {
  for (;;) {
    try {
      await attack()
    } catch (error) {
      count((error as NodeJS.ErrnoException).code ?? String((error as Error).message))
    }
    // Whatever happens, the loop turns.
    await new Promise((resolve) => setImmediate(resolve))
  }
}
