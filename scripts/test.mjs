// `npm test`: sets up what is missing, runs vitest and ends with one line that counts the tests.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { installRedis } from './redis.mjs'
import { root, setUpForDevelopment } from './setup.mjs'

// Printed on the way out, whatever ends the run, so that it is always the last line.
let summary = '0 passed, 1 failed'
process.on('exit', () => console.log(`\n${summary}`))

setUpForDevelopment()
installRedis()

const results = join(root, `.tmp/test-results-${process.pid}.json`)
mkdirSync(join(root, '.tmp'), { recursive: true })
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${results}`]
const vitest = join(root, 'node_modules/vitest/vitest.mjs')
const { status } = spawnSync(process.execPath, [vitest, 'run', ...reporters, ...process.argv.slice(2)], { cwd: root, stdio: 'inherit' })

const { passed, failed, skipped } = count()
summary = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
process.exit(failed > 0 ? status || 1 : 0)

/** A file that could not be loaded and an error outside of any test count as a failed test each. */
function count() {
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = read()
  const brokenFiles = testResults.filter(({ status: result, assertionResults }) => {
    return result === 'failed' && !assertionResults.some((one) => one.status === 'failed')
  })
  const seen = numFailedTests + brokenFiles.length
  return { passed: numPassedTests, failed: status === 0 ? seen : Math.max(seen, 1), skipped: numPendingTests + numTodoTests }
}

function read() {
  try {
    return JSON.parse(readFileSync(results, 'utf8'))
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] }
  } finally {
    rmSync(results, { force: true })
  }
}
