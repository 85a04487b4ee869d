// `npm run lint`: formatting, lint rules and types, all of them, so that one run shows everything that is wrong.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root, installForDevelopment } from './setup.mjs'

installForDevelopment()

const checks = [
  ['@biomejs/biome/bin/biome', 'format'],
  ['oxlint/bin/oxlint', '--type-aware', '--deny-warnings'],
  ['typescript/bin/tsc', '-p', 'tsconfig.json'],
]
const failed = checks.filter(([program, ...args]) => {
  const path = join(root, 'node_modules', program)
  return spawnSync(process.execPath, [path, ...args], { cwd: root, stdio: 'inherit' }).status !== 0
})
process.exit(failed.length > 0 ? 1 : 0)
