/** Runs the parts of a bench that were asked for, and prints one table of all. */
import { type Row, printTable } from './figures.js'
import { pinGenerator, pinning } from './processes.js'

export type Parts = Readonly<Record<string, () => Promise<Row[]>>>

/** `choose` says which of the asked parts run; asked for nothing it gets an empty list. */
export async function runParts(parts: Parts, choose: (asked: readonly string[]) => readonly string[]): Promise<never> {
  const asked = process.argv.slice(2)
  const unknown = asked.filter((name) => !(name in parts))
  if (unknown.length > 0) {
    console.error(`There is no part ${unknown.join(', ')}; there are: ${Object.keys(parts).join(', ')}.`)
    process.exit(1)
  }
  pinGenerator()
  console.log(`Convolog bench, ${pinning}, Node ${process.versions.node}`)
  const rows: Row[] = []
  for (const name of choose(asked)) rows.push(...(await parts[name]!()))
  printTable(rows)
  process.exit(0)
}
