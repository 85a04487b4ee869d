/** Latencies, and the table at the end. */

/** Counts latencies in buckets 2 % wide: adding one costs next to nothing and keeps nothing. */
export class Latencies {
  static readonly #base = Math.log(1.02)
  readonly #counts = new Float64Array(1_200)
  #count = 0
  #max = 0

  add(ms: number): void {
    const bucket = ms <= 0.001 ? 0 : Math.min(1_199, Math.ceil(Math.log(ms * 1_000) / Latencies.#base))
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
    this.#count += 1
    if (ms > this.#max) this.#max = ms
  }

  get count(): number {
    return this.#count
  }

  at(share: number): number {
    let left = this.#count * share
    for (const [bucket, count] of this.#counts.entries()) {
      left -= count
      if (left <= 0) return Math.min(this.#max, Math.exp(bucket * Latencies.#base) / 1_000)
    }
    return this.#max
  }

  toString(): string {
    return `p50 ${milliseconds(this.at(0.5))}, p99 ${milliseconds(this.at(0.99))}`
  }
}

export interface Row {
  what: string
  figure: string
  raw?: string
  ratio?: string
  /** The same ratio by CPU time: what is left of a noisy machine's figures. */
  byCpu?: string
  goal?: string
}

export const rate = (value: number, unit: string) => `${Math.round(value).toLocaleString('en')} ${unit}/s`
export const milliseconds = (ms: number) => `${ms < 1 ? ms.toFixed(2) : ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`
export const percent = (share: number) => `${Math.round(share * 100)} %`
export const microseconds = (ms: number) => `${(ms * 1_000).toPrecision(3)} µs`
/** From CPU time in ms for one of whatever is counted. */
export const byCpu = (ms: number, rawMs: number) => `${microseconds(ms)}, raw ${microseconds(rawMs)}: ${percent(rawMs / ms)}`
export const times = (factor: number) => `× ${factor.toFixed(1)}`

export const kilobytes = (bytes: number) => `${(bytes / 1_000).toFixed(1)} KB`
export const megabytes = (bytes: number) => `${Math.round(bytes / 1_000_000).toLocaleString('en')} MB`

/** The same thing done to a large one and, in the column of raw, to a small one. */
export const rowAgainst = (what: string, large: Latencies, small: Latencies, goal?: string): Row => {
  const ratio = (share: number) => `× ${(large.at(share) / small.at(share)).toFixed(2)}`
  return {
    what,
    figure: String(large),
    raw: String(small),
    ratio: `p50 ${ratio(0.5)}, p99 ${ratio(0.99)}`,
    ...(goal === undefined ? {} : { goal }),
  }
}

export function printTable(rows: readonly Row[]): void {
  const heads: Required<Row> = { what: 'what', figure: 'figure', raw: 'raw', ratio: 'ratio', byCpu: 'by CPU time', goal: 'goal' }
  const keys = Object.keys(heads) as (keyof Row)[]
  const widths = keys.map((key) => Math.max(...[heads, ...rows].map((row) => (row[key] ?? '').length)))
  const line = (row: Row) =>
    keys
      .map((key, i) => (row[key] ?? '').padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd()
  console.log(`\n${line(heads)}\n${widths.map((width) => '─'.repeat(width)).join('  ')}`)
  for (const row of rows) console.log(line(row))
}
