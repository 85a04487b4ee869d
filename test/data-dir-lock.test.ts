import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type LockTimes, acquireDataDirLock } from '../src/data-dir-lock.js'
import { ownProcessSpace, startedAtTicks } from '../src/processes.js'
import { StartError } from '../src/start-error.js'
import { LogBook } from './support/notes.js'
import { temporaryDir } from './support/temporary-dir.js'
import { eventually } from './support/world.js'

const acquire = (dataDir: string, times: Partial<LockTimes> = {}, logger = new LogBook()) => acquireDataDirLock(dataDir, { logger, times })

/** The lock of a process that is alive here, but was written by one of the same number elsewhere. */
const lockOf = (elsewhere: object) =>
  JSON.stringify({ pid: process.pid, startedAtTicks: startedAtTicks(process.pid) ?? null, ...ownProcessSpace(), ...elsewhere })

test('keeps a second server out until the first has released it', async () => {
  const dataDir = join(await temporaryDir(), 'data')
  const lock = await acquire(dataDir)
  expect((await stat(dataDir)).mode & 0o777).toBe(0o700)
  await expect(acquire(dataDir)).rejects.toThrow(/^DATA_DIR .* is in use by another server/)
  await lock.release()
  expect(await readdir(dataDir)).toEqual([])
  await (await acquire(dataDir)).release()
})

test('of a process that was killed is taken over', async () => {
  const dataDir = await temporaryDir()
  const holder = spawn('sleep', ['60'])
  const pid = holder.pid ?? 0
  await writeFile(join(dataDir, 'server.lock'), JSON.stringify({ pid, startedAtTicks: startedAtTicks(pid) ?? null }))
  await expect(acquire(dataDir)).rejects.toThrow(`process ${pid}`)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  await (await acquire(dataDir)).release()
})

test.skipIf(process.platform !== 'linux')('of a process whose number another one has by now is taken over', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'server.lock'), JSON.stringify({ pid: process.pid, startedAtTicks: '1' }))
  await (await acquire(dataDir)).release()
})

const places = [
  ['another host', { hostname: 'elsewhere' }],
  ['before the last boot', { bootId: 'b1e7' }],
  ['another container', { pidNamespace: 'pid:[1]' }],
] as const

test.each(places)('of a server of %s is held as long as it is written again', async (_, elsewhere) => {
  const dataDir = await temporaryDir()
  const path = join(dataDir, 'server.lock')
  const beat = () => writeFile(path, lockOf(elsewhere))
  await beat()
  const beating = setInterval(() => void beat(), 20)
  const start = acquire(dataDir, { silentMsMax: 60_000, watchMsMin: 60_000 })
  await expect(start).rejects.toThrow(
    /^DATA_DIR .* is in use by another server \(process \d+ of another container or host, .+\): stop that one, or give this one another DATA_DIR\.$/,
  )
  clearInterval(beating)
})

test.each(places)('of a server of %s is taken over once it is not written any more, and that is said', async (_, elsewhere) => {
  const dataDir = await temporaryDir()
  const logger = new LogBook()
  await writeFile(join(dataDir, 'server.lock'), lockOf(elsewhere))
  const lock = await acquire(dataDir, { silentMsMax: 500, watchMsMin: 50 }, logger)
  expect(logger.lines).toEqual([
    'info: DATA_DIR was used by a server in another container or on another host: waiting to see whether it runs',
    'warn: The server in another container or on another host has ended without giving DATA_DIR back: taking it over',
  ])
  await lock.release()
})

test('of elsewhere that looks old, by a clock that differs, is watched all the same', async () => {
  const dataDir = await temporaryDir()
  const path = join(dataDir, 'server.lock')
  const beat = async (atMs: number) => {
    await writeFile(path, lockOf({ hostname: 'elsewhere' }))
    await utimes(path, atMs / 1_000, atMs / 1_000)
  }
  await beat(1_000_000)
  let atMs = 1_000_000
  const beating = setInterval(() => void beat((atMs += 1_000)), 20)
  await expect(acquire(dataDir, { silentMsMax: 1, watchMsMin: 60_000 })).rejects.toThrow('another container or host')
  clearInterval(beating)
})

test('of elsewhere that is given back meanwhile is free, and nothing is said of a take-over', async () => {
  const dataDir = await temporaryDir()
  const logger = new LogBook()
  await writeFile(join(dataDir, 'server.lock'), lockOf({ hostname: 'elsewhere' }))
  const start = acquire(dataDir, { silentMsMax: 60_000 }, logger)
  await eventually(async () => logger.lines.length > 0, 'the start to wait')
  await rm(join(dataDir, 'server.lock'))
  await (await start).release()
  expect(logger.lines).toHaveLength(1)
})

test('is written again and again, and is not lost by that', async () => {
  const dataDir = await temporaryDir()
  const path = join(dataDir, 'server.lock')
  const lock = await acquire(dataDir, { heartbeatMs: 5 })
  const { mtimeMs } = await stat(path)
  const content = await readFile(path, 'utf8')
  await eventually(async () => (await stat(path)).mtimeMs > mtimeMs, 'a heartbeat')
  expect(await readFile(path, 'utf8')).toBe(content)
  await lock.release()
  expect(await readdir(dataDir)).toEqual([])
})

test('that another server has taken over meanwhile is lost, which its holder hears, and left to that one', async () => {
  const dataDir = await temporaryDir()
  const path = join(dataDir, 'server.lock')
  const lock = await acquire(dataDir, { heartbeatMs: 5 })
  const theirs = lockOf({ hostname: 'elsewhere' })
  await rm(path)
  await writeFile(path, theirs)
  // Its own heartbeat may have been quicker than the other server.
  await eventually(async () => {
    await writeFile(path, theirs)
    return (await readFile(path, 'utf8')) === theirs
  }, 'the other lock to stand')
  expect((await lock.lost).message).toMatch(/^Another server has taken DATA_DIR over/)
  await lock.release()
  expect(await readFile(path, 'utf8')).toBe(theirs)
})

test('that broke off while it was written is taken over', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'server.lock'), '')
  await (await acquire(dataDir)).release()
})

test('goes to one of many that find a stale one at once', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'server.lock'), JSON.stringify({ pid: 2 ** 22 + 1, startedAtTicks: '1' }))
  const starts = await Promise.allSettled(Array.from({ length: 20 }, () => acquire(dataDir)))
  expect(starts.filter((start) => start.status === 'fulfilled')).toHaveLength(1)
  expect(await readdir(dataDir)).toEqual(['server.lock'])
})

test('a data directory that cannot be is one sentence', async () => {
  const file = join(await temporaryDir(), 'file')
  await writeFile(file, '')
  await expect(acquire(join(file, 'data'))).rejects.toThrow(StartError)
})

test.skipIf(process.platform !== 'linux')('a data directory in /proc is refused, and not tried for ever', async () => {
  await expect(acquire('/proc/convolog/data')).rejects.toThrow(/^DATA_DIR \/proc\/convolog\/data cannot be used: .+\.$/)
})
