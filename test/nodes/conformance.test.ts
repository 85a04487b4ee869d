import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Log, type LogName, logNames, startLog, withoutLog } from '../support/logs.js'
import { Node } from '../support/nodes.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { type TestRedis, hasRedis, startTestRedis } from '../support/redis.js'
import { type RoundRobin, startRoundRobin } from '../support/round-robin.js'
import { APP_SECRET, JWT_SECRET } from '../support/world.js'

/** The checks from outside are not in the repository, and take minutes: they run when CONFORMANCE names their run.mjs. */
const suite = process.env['CONFORMANCE'] ?? ''
const root = fileURLToPath(new URL('../..', import.meta.url))
const AUDIT_SECRET = 'test-audit-secret-0123456789'
const ACT_SECRET = 'test-act-secret-0123456789'

for (const name of logNames)
  describe.skipIf(!hasRedis || !existsSync(suite) || withoutLog(name))(
    `the contract, by three nodes on ${name} behind a load balancer`,
    () => keptByNodes(name),
  )

function keptByNodes(name: LogName): void {
  let postgres: TestPostgres
  let log: Log
  let redis: TestRedis
  let nodes: Node[]
  let balancer: RoundRobin

  beforeAll(async () => {
    ;[postgres, redis, log] = await Promise.all([startTestPostgres(), startTestRedis(), startLog(name)])
    const env = {
      ...log.env,
      DATABASE_URL: await postgres.createDatabase(),
      REDIS_URL: redis.url,
      FRAMES_PER_SECOND: '60',
      LOG_LEVEL: 'warn',
      APP_KEYS: `full:${APP_SECRET},auditor:${AUDIT_SECRET}:audit,bot:${ACT_SECRET}:act`,
    }
    nodes = [await Node.start(env), ...(await Promise.all([Node.start(env), Node.start(env)]))]
    balancer = await startRoundRobin(nodes.map(({ url }) => Number(new URL(url).port)))
  })
  afterAll(async () => {
    await balancer?.close()
    await Promise.all((nodes ?? []).map((node) => node.stop()))
    await Promise.all([log?.stop(), redis?.stop(), postgres?.stop()])
  })

  test('is kept', { timeout: 1_200_000 }, async () => {
    const secrets = ['--app-secret', APP_SECRET, '--jwt-secret', JWT_SECRET, '--audit-secret', AUDIT_SECRET, '--act-secret', ACT_SECRET]
    const extra = (process.env['CONFORMANCE_ARGS'] ?? '').split(' ').filter(Boolean)
    const run = spawn(process.execPath, [suite, '--cwd', root, '--url', balancer.url, ...secrets, ...extra], { stdio: 'inherit' })
    await once(run, 'exit')
    for (const node of nodes) for (const line of node.lines.filter((one) => one.startsWith('{'))) console.log(line)
    expect(run.exitCode).toBe(0)
  })
}
