// `npm run simulate -- [--seeds 100000] [--seed N]`: compiles src and test/simulation into .tmp/simulation and runs the simulator.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { installForDevelopment, root, run } from './setup.mjs'

installForDevelopment()

run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.simulation.json'])
const program = join(root, '.tmp/simulation/test/simulation/main.js')
process.argv.splice(1, 1, program)
await import(pathToFileURL(program).href)
