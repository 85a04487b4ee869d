/** `npm run bench`: all of it; `npm run bench -- a d`: parts. See README.md. */
import { type Row, printTable } from './figures.js'
import { pinGenerator, pinning } from './processes.js'
import { benchSend } from './send.js'

const parts: Record<string, () => Promise<Row[]>> = { a: benchSend, c: benchSend }

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !(name in parts))
if (unknown.length > 0) {
  console.error(`There is no part ${unknown.join(', ')}; there are: ${Object.keys(parts).join(', ')}.`)
  process.exit(1)
}
pinGenerator()
console.log(`Convolog bench, ${pinning}, Node ${process.versions.node}`)
const chosen = new Set(Object.entries(parts).filter(([name]) => asked.length === 0 || asked.includes(name)).map(([, part]) => part))
const rows: Row[] = []
for (const part of chosen) rows.push(...(await part()))
printTable(rows)
process.exit(0)
