// `npm run lint`: formatting, lint rules, types and the documents of the API, all of them, so that one run shows everything that is wrong.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root, installForDevelopment } from './setup.mjs'

installForDevelopment()

const checks = [
  ['@biomejs/biome/bin/biome', 'format'],
  ['oxlint/bin/oxlint', '--type-aware', '--deny-warnings'],
  ['typescript/bin/tsc', '-p', 'tsconfig.json'],
  ['@redocly/cli/bin/cli.js', 'lint', 'openapi/openapi.json', '--max-problems=20'],
  ['../scripts/lint-asyncapi.mjs'],
]
// It would look for news of itself.
const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' }
const failed = checks.filter(([program, ...args]) => {
  const path = join(root, 'node_modules', program)
  return spawnSync(process.execPath, [path, ...args], { cwd: root, stdio: 'inherit', env }).status !== 0
})
process.exit(failed.length > 0 ? 1 : 0)
