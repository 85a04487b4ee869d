/** `npm run bench`: all of it; `npm run bench -- a d`: parts. See README.md. */
import { type Row, printTable } from './figures.js'
import { benchGroup } from './group.js'
import { benchLog } from './log.js'
import { pinGenerator, pinning } from './processes.js'
import { benchResume } from './resume.js'
import { benchSend } from './send.js'

const parts: Record<string, () => Promise<Row[]>> = {
  a: () => benchSend({ replays: false }),
  b: benchGroup,
  c: () => benchSend({ replays: true }),
  d: benchResume,
  e: benchLog,
}

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !(name in parts))
if (unknown.length > 0) {
  console.error(`There is no part ${unknown.join(', ')}; there are: ${Object.keys(parts).join(', ')}.`)
  process.exit(1)
}
pinGenerator()
console.log(`Convolog bench, ${pinning}, Node ${process.versions.node}`)
// (c) begins with (a).
const chosen = asked.length === 0 ? ['b', 'c', 'd', 'e'] : asked.filter((name) => name !== 'a' || !asked.includes('c')).sort()
const rows: Row[] = []
for (const name of chosen) rows.push(...(await parts[name]!()))
printTable(rows)
process.exit(0)
