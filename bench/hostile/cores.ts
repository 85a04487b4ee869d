/** How busy the cores are, whoever keeps them so. */
import { readFileSync } from 'node:fs'
import { measuredCores } from '../processes.js'

/** As of one look, in ticks. */
type Look = ReadonlyMap<string, { busy: number; total: number }>

export class CoreMeter {
  #last = look()

  /** The busiest core's share since the last call. */
  busiest(): number {
    const now = look()
    const shares = [...now].map(([core, { busy, total }]) => {
      const before = this.#last.get(core)!
      return total === before.total ? 0 : (busy - before.busy) / (total - before.total)
    })
    this.#last = now
    return Math.max(...shares)
  }
}

function look(): Look {
  const names = measuredCores.length > 0 ? measuredCores.map((core) => `cpu${core}`) : ['cpu']
  const lines = readFileSync('/proc/stat', 'utf8').split('\n')
  return new Map(
    names.map((name) => {
      const ticks = lines
        .find((line) => line.startsWith(`${name} `))!
        .trim()
        .split(/\s+/)
        .slice(1, 9)
        .map(Number)
      const total = ticks.reduce((sum, value) => sum + value, 0)
      const idle = ticks[3]! + ticks[4]!
      return [name, { busy: total - idle, total }]
    }),
  )
}
