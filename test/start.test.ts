import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { StartError } from '../src/start-error.js'
import { startAppServer } from './support/app-server.js'
import { freePort } from './support/free-port.js'
import { type TestPostgres, startTestPostgres } from './support/postgres.js'

/** Settings that are well-formed, and wrong all the same: each stops the start with one sentence that names it. */

let postgres: TestPostgres
beforeAll(async () => {
  postgres = await startTestPostgres()
})
afterAll(() => postgres?.stop())

async function refused(env: Record<string, string>, sentence: RegExp): Promise<void> {
  const starting = startAppServer(env['DATABASE_URL'] ?? (await postgres.createDatabase()), { env })
  const error: unknown = await starting.then(
    (app) => app.stop(),
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(StartError)
  expect((error as Error).message).toMatch(sentence)
}

test('a port that is taken', async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  await refused({ PORT: String(port) }, new RegExp(`^PORT ${port} of HOST 127\\.0\\.0\\.1 is in use: .+\\.$`))
  other.close()
})

test('a host that is no address of this machine', () => refused({ HOST: '203.0.113.7' }, /^HOST 203\.0\.113\.7 is no address .+\.$/))

test.each([
  ['DATABASE_URL', 'postgres://user:hidden@'],
  ['EVENTSTORE_URL', 'esdb://user:hidden@'],
])('%s where nobody answers, and no password repeated', async (name, beginning) => {
  const url = `${beginning}127.0.0.1:${await freePort()}/x?tls=false`
  await refused({ [name]: url }, new RegExp(`^${name} leads to no server that lets us in: (?!.*hidden).*ECONNREFUSED.*\\.$`))
})
