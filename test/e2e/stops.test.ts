import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { Agent, get } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { EmbeddedPostgres } from '../../src/postgres/embedded-postgres.js'
import { isAlive } from '../../src/processes.js'
import { freePort } from '../support/free-port.js'
import { signalFamily } from '../support/postgres.js'
import { type Exit, ServerProcess } from '../support/server-process.js'
import { temporaryDir } from '../support/temporary-dir.js'
import { World, eventually } from '../support/world.js'

/** The contract: whatever its clients and its database do, a server that is told to end does so within 15 s, with code 0, and leaves nothing. */

const STOP_MS_MAX = 15_000
const root = fileURLToPath(new URL('../..', import.meta.url))

let server: ServerProcess
beforeAll(async () => {
  server = await ServerProcess.start({ LOG_LEVEL: 'warn' })
}, 150_000)
afterEach(() => server.heal(), 150_000)
afterAll(() => server?.end())

const endsInTime = async (told: ServerProcess): Promise<void> => {
  expect(await Promise.race([told.exited, sleep(STOP_MS_MAX, 'still there')])).toEqual({ code: 0, signal: null })
  // One that was killed is gone as soon as the system has taken note of it.
  await eventually(async () => told.postgresPid === undefined, 'Postgres to be gone', 10_000)
  expect(existsSync(join(told.dataDir, 'server.lock'))).toBe(false)
}

/** Nothing more is projected, and all can be read, until what this gives is called. */
async function holdReadModels(dataDir: string): Promise<() => Promise<void>> {
  const { connectionString, detach } = await EmbeddedPostgres.attach(dataDir)
  const holder = new pg.Client({ connectionString })
  onTestFinished(detach)
  // The server that ends takes its Postgres, and with that this session, along.
  holder.on('error', () => {})
  await holder.connect()
  onTestFinished(() => holder.end())
  await holder.query('BEGIN; LOCK TABLE read.checkpoints IN EXCLUSIVE MODE')
  return async () => void (await holder.query('ROLLBACK'))
}

test('while clients keep requests waiting: an answer that is awaited, half a request, a connection that is kept', async () => {
  const { host, port } = new URL(server.world.url)
  const half = connect(Number(port), '127.0.0.1')
  half.on('error', () => {})
  half.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n`)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  onTestFinished(() => agent.destroy())
  const user = server.world.user()
  const conversation = await user.group()
  const release = await holdReadModels(server.dataDir)
  const { position } = await user.send(conversation)
  const headers = { authorization: `Bearer ${user.token}` }
  const awaited = new Promise<{ status: number; connection: string | undefined }>((resolve, reject) => {
    get({ host: '127.0.0.1', port, agent, headers, path: `/v1/inbox?minPosition=${position}` }, (answer) => {
      answer.resume()
      answer.on('end', () => resolve({ status: answer.statusCode!, connection: answer.headers.connection }))
    }).on('error', reject)
  })
  // It is taken after the other, and answered before: both are in the server now.
  await user.get('/v1/inbox')
  server.signal('SIGTERM')
  expect(await awaited).toEqual({ status: 503, connection: 'close' })
  await release()
  await endsInTime(server)
  await server.restart()
}, 600_000)

test.each(['SIGHUP', 'SIGINT', 'SIGTERM'] as const)(
  'by %s, twice: devices are told, and what they have read is kept',
  async (signal) => {
    const [a, b] = server.world.users('a', 'b')
    const conversation = await a.group([b])
    const [device, { seq }] = [await b.connect(), await a.send(conversation)]
    await device.waitForSeq(conversation.conversationId, seq)
    device.send({ type: 'read', conversationId: conversation.conversationId, seq })
    await device.ask('presence.query', { userIds: [a.id] })
    server.signal(signal)
    const closed = device.waitForClose()
    server.signal(signal)
    expect(await closed).toBe(4000)
    expect(device.ofType('goaway').length).toBe(1)
    await endsInTime(server)
    await server.restart()
    await eventually(async () => {
      const { items } = await a.get<{ items: { userId: string; readSeq: number | null }[] }>(
        `/v1/conversations/${conversation.conversationId}/receipts`,
      )
      return items.find(({ userId }) => userId === b.id)?.readSeq === seq
    }, 'what was read to be known')
  },
  600_000,
)

test('while its Postgres stands still', async () => {
  const user = server.world.user()
  const conversation = await user.group()
  const postgres = server.postgresPid!
  server.signalPostgres('SIGSTOP')
  const sending = user.send(conversation).catch(() => undefined)
  server.signal('SIGTERM')
  await endsInTime(server)
  expect(isAlive(postgres)).toBe(false)
  await sending
  await server.restart()
}, 600_000)

test('while it starts', async () => {
  const dataDir = await temporaryDir()
  const npm = startNpm(dataDir, await freePort())
  await eventually(async () => existsSync(join(dataDir, 'server.lock')), 'the start to begin', 240_000)
  npm.child.kill('SIGTERM')
  expect(await Promise.race([npm.exited, sleep(STOP_MS_MAX, 'still there')])).toEqual({ code: 0, signal: null })
  expect(processesOf(dataDir)).toEqual([])
}, 600_000)

test('that cannot go on says why in one line, stops, and ends with 1', async () => {
  const dataDir = await temporaryDir()
  const main = pathToFileURL(join(root, 'dist/main.js')).href
  // When the start has begun, and with it the watch for what nobody catches.
  const fault = `const look = setInterval(() => {
    if (!fs.existsSync(${JSON.stringify(join(dataDir, 'server.lock'))})) return
    clearInterval(look)
    throw Object.assign(new Error('a bug'), { password: 'hunter2' })
  }, 20)`
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '-e',
      `import fs from 'node:fs'; process.argv.splice(1, 0, 'x'); ${fault}; await import(${JSON.stringify(main)})`,
    ],
    {
      env: { ...process.env, DATA_DIR: dataDir, PORT: String(await freePort()), LOG_LEVEL: 'warn' },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
  const [code] = (await once(child, 'close')) as [number]
  expect(code).toBe(1)
  const fatal = output.split('\n').filter((line) => line.startsWith('{"level":60'))
  expect(fatal.map((line) => (JSON.parse(line) as { err: { message: string } }).err.message)).toEqual(['a bug'])
  expect(output).not.toContain('hunter2')
  expect(processesOf(dataDir)).toEqual([])
}, 600_000)

/** npm runs the server as its child: a signal may reach npm alone, or the whole group as Ctrl-C does. */
interface Npm {
  child: ChildProcess
  exited: Promise<Exit>
}

const running: ChildProcess[] = []
afterEach(() => {
  for (const { pid, exitCode, signalCode } of running.splice(0))
    if (pid !== undefined && exitCode === null && signalCode === null) signalFamily(pid, 'SIGKILL')
})

function startNpm(dataDir: string, port: number): Npm {
  const env = { ...process.env, DATA_DIR: dataDir, PORT: String(port), LOG_LEVEL: 'warn' }
  // A group of its own, as a shell gives to what is typed.
  const child = spawn('npm', ['start'], { cwd: root, env, stdio: 'ignore', detached: true })
  running.push(child)
  return { child, exited: once(child, 'exit').then(([code, signal]) => ({ code, signal })) }
}

/** Every process that has the data directory among its settings or arguments. */
function processesOf(dataDir: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => mentions(`/proc/${pid}/environ`, dataDir) || mentions(`/proc/${pid}/cmdline`, dataDir))
}

function mentions(file: string, text: string): boolean {
  try {
    return readFileSync(file, 'utf8').includes(text)
  } catch {
    return false
  }
}

test.each([
  ['SIGTERM to npm', 'SIGTERM', 'npm', 1, { code: 0, signal: null }],
  ['SIGTERM to npm, twice', 'SIGTERM', 'npm', 2, { code: 0, signal: null }],
  ['SIGINT to npm', 'SIGINT', 'npm', 1, { code: 0, signal: null }],
  ['Ctrl-C', 'SIGINT', 'group', 1, { code: 0, signal: null }],
  ['Ctrl-C, twice', 'SIGINT', 'group', 2, { code: 0, signal: null }],
  // Of this one npm ends itself, and tells nobody.
  ['a terminal that goes', 'SIGHUP', 'group', 1, { code: null, signal: 'SIGHUP' }],
  ['SIGHUP to npm', 'SIGHUP', 'npm', 1, { code: null, signal: 'SIGHUP' }],
  ['the death of npm', 'SIGKILL', 'npm', 1, { code: null, signal: 'SIGKILL' }],
] as const)(
  'of `npm start`, by %s: nothing is left',
  async (_, signal, whom, times, exit) => {
    const [dataDir, port] = [await temporaryDir(), await freePort()]
    const { child, exited } = startNpm(dataDir, port)
    const world = new World(`http://127.0.0.1:${port}`)
    await eventually(
      async () => (await world.call('/health/ready').catch(() => undefined))?.status === 200,
      'the server to be ready',
      120_000,
    )
    expect(processesOf(dataDir).length).toBeGreaterThan(2)
    const toldAt = performance.now()
    for (let n = 0; n < times; n += 1) process.kill(whom === 'npm' ? child.pid! : -child.pid!, signal)
    expect(await Promise.race([exited, sleep(STOP_MS_MAX, 'still there')])).toEqual(exit)
    await eventually(async () => processesOf(dataDir).length === 0, 'nothing to be left', STOP_MS_MAX - (performance.now() - toldAt))
    expect(existsSync(join(dataDir, 'server.lock'))).toBe(false)
  },
  600_000,
)
