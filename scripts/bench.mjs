// `npm run bench -- <name> [arguments]`: compiles src and bench into .tmp/bench and runs bench/<name>.ts (main when none is named).
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root, run, setUpForDevelopment } from './setup.mjs'

setUpForDevelopment()

const named = process.argv[2] !== undefined && !process.argv[2].startsWith('-')
const name = named ? process.argv[2] : 'main'
if (!existsSync(join(root, 'bench', `${name}.ts`))) {
  const names = existsSync(join(root, 'bench')) ? readdirSync(join(root, 'bench')).filter((file) => file.endsWith('.ts')) : []
  console.error(`There is no bench/${name}.ts; there are: ${names.map((file) => file.slice(0, -3)).join(', ') || 'none'}.`)
  process.exit(1)
}
run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.bench.json'])
const program = join(root, '.tmp/bench/bench', `${name}.js`)
process.argv.splice(1, named ? 2 : 1, program)
await import(pathToFileURL(program).href)
