import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { pino } from 'pino'
import { expect, onTestFinished, test, vi } from 'vitest'
import { openCluster } from '../../src/postgres/cluster.js'
import { EmbeddedPostgres } from '../../src/postgres/embedded-postgres.js'
import { PostgresProcess } from '../../src/postgres/postgres-process.js'
import { chooseRunAs } from '../../src/postgres/run-as.js'
import { isAlive } from '../../src/processes.js'
import { temporaryDir } from '../support/temporary-dir.js'

const silent = pino({ level: 'silent' })

test('keeps its data over a restart, in a folder that only this user can enter', async () => {
  const dataDir = await temporaryDir()
  const first = await start(dataDir)
  await query(first, "CREATE TABLE words AS SELECT 'kept' AS word")
  expect(await query(first, 'SHOW fsync')).toEqual([{ fsync: 'on' }])
  await first.stop()
  expect(await first.exited).toBeUndefined()
  const second = await start(dataDir)
  expect(await query(second, 'SELECT word FROM words')).toEqual([{ word: 'kept' }])
  expect(await readdir(dataDir)).toEqual(['postgres'])
})

test('comes back by itself when it is killed, under the same connection string and with what was committed', async () => {
  const log = { ...silent, error: vi.fn(), warn: vi.fn() }
  const postgres = await start(await temporaryDir(), log)
  await query(postgres, "CREATE TABLE words AS SELECT 'committed' AS word")
  const killed = postgres.pid ?? 0
  process.kill(killed, 'SIGKILL')
  await vi.waitFor(() => expect(log.warn.mock.calls).toContainEqual([{ pid: postgres.pid }, 'Postgres is back']), { timeout: 50_000 })
  expect(log.error).toHaveBeenCalledTimes(1)
  expect(postgres.pid).not.toBe(killed)
  expect(await query(postgres, 'SELECT word FROM words')).toEqual([{ word: 'committed' }])
})

test('stops while it is being brought back', async () => {
  const postgres = await start(await temporaryDir())
  process.kill(postgres.pid ?? 0, 'SIGKILL')
  await sleep(20)
  await postgres.stop()
  expect(await postgres.exited).toBeUndefined()
})

test('ends what a killed predecessor left running on the same data', async () => {
  const dataDir = await temporaryDir()
  const leftover = new PostgresProcess(await openCluster(dataDir), silent)
  await leftover.ready()
  const postgres = await start(dataDir)
  expect(await leftover.exited).toBe('it ended with code 0')
  expect(await query(postgres, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test('is not held up by a pid file whose number another program has by now, nor by a first start that broke off', async () => {
  const dataDir = await temporaryDir()
  await mkdir(join(dataDir, 'postgres.new-unfinished/base'), { recursive: true })
  await (await start(dataDir)).stop()
  const other = spawn('sleep', ['60'])
  onTestFinished(() => void other.kill())
  await writeFile(join(dataDir, 'postgres/postmaster.pid'), `${other.pid}\n${join(dataDir, 'postgres')}\n`)
  await start(dataDir)
  expect(isAlive(other.pid ?? 0)).toBe(true)
  expect(await readdir(dataDir)).toEqual(['postgres'])
})

test('another process that looks for it during its first start disturbs nothing', async () => {
  const dataDir = await temporaryDir()
  await mkdir(join(dataDir, 'postgres.new-being-made/base'), { recursive: true })
  await expect(EmbeddedPostgres.attach(dataDir)).rejects.toThrow(/is not ready yet: try again in a moment\.$/)
  expect(await readdir(dataDir)).toEqual(['postgres.new-being-made'])
  await start(dataDir)
  const { connectionString, detach } = await EmbeddedPostgres.attach(dataDir)
  const client = new pg.Client({ connectionString })
  await client.connect()
  await client.end()
  await detach()
})

test('is reached where the path is too long for a socket', async () => {
  const dataDir = join(await temporaryDir(), 'a-rather-long-name-'.repeat(8))
  await mkdir(dataDir)
  expect(await query(await start(dataDir), 'SELECT 1 AS one')).toEqual([{ one: 1 }])
})

test('a folder that holds something else is refused in one sentence', async () => {
  const dataDir = await temporaryDir()
  await mkdir(join(dataDir, 'postgres'))
  await writeFile(join(dataDir, 'postgres/notes.txt'), 'mine')
  await expect(start(dataDir)).rejects.toThrow(/holds something that is no Postgres cluster\.$/)
})

test.skipIf(process.platform !== 'linux')('what runs under its wrapper ends with its parent', async () => {
  const { wrapper, spawnOptions } = chooseRunAs(join(await temporaryDir(), 'postgres'), ['/'])
  const [command, ...args] = [...wrapper, 'sleep', '60']
  const script = `
    const child = require('node:child_process').spawn(${JSON.stringify(command)}, ${JSON.stringify(args)},
      { ...${JSON.stringify(spawnOptions)}, detached: true, stdio: 'ignore' })
    console.log(child.pid)
    setInterval(() => {}, 1000)`
  const parent = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  await sleep(200)
  expect(isAlive(pid)).toBe(true)
  parent.kill('SIGKILL')
  await vi.waitFor(() => expect(isAlive(pid)).toBe(false), { timeout: 50_000 })
})

async function start(dataDir: string, logger: Parameters<typeof EmbeddedPostgres.start>[0]['logger'] = silent): Promise<EmbeddedPostgres> {
  const postgres = await EmbeddedPostgres.start({ dataDir, logger })
  onTestFinished(() => postgres.stop())
  return postgres
}

async function query(postgres: EmbeddedPostgres, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: postgres.connectionString })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end()
  }
}
