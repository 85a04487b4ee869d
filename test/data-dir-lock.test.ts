import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { acquireDataDirLock } from '../src/data-dir-lock.js'
import { startedAtTicks } from '../src/processes.js'
import { StartError } from '../src/start-error.js'
import { temporaryDir } from './support/temporary-dir.js'

test('keeps a second server out until the first has released it', async () => {
  const dataDir = join(await temporaryDir(), 'data')
  const lock = await acquireDataDirLock(dataDir)
  expect((await stat(dataDir)).mode & 0o777).toBe(0o700)
  await expect(acquireDataDirLock(dataDir)).rejects.toThrow(/^DATA_DIR .* is in use by another server/)
  await lock.release()
  expect(await readdir(dataDir)).toEqual([])
  await (await acquireDataDirLock(dataDir)).release()
})

test('of a process that was killed is taken over', async () => {
  const dataDir = await temporaryDir()
  const holder = spawn('sleep', ['60'])
  const pid = holder.pid ?? 0
  await writeFile(join(dataDir, 'server.lock'), JSON.stringify({ pid, startedAtTicks: startedAtTicks(pid) ?? null }))
  await expect(acquireDataDirLock(dataDir)).rejects.toThrow(`process ${pid}`)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  await (await acquireDataDirLock(dataDir)).release()
})

test.skipIf(process.platform !== 'linux')('of a process whose number another one has by now is taken over', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'server.lock'), JSON.stringify({ pid: process.pid, startedAtTicks: '1' }))
  await (await acquireDataDirLock(dataDir)).release()
})

test('that broke off while it was written is taken over', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'server.lock'), '')
  await (await acquireDataDirLock(dataDir)).release()
})

test('goes to one of many that find a stale one at once', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'server.lock'), JSON.stringify({ pid: 2 ** 22 + 1, startedAtTicks: '1' }))
  const starts = await Promise.allSettled(Array.from({ length: 20 }, () => acquireDataDirLock(dataDir)))
  expect(starts.filter((start) => start.status === 'fulfilled')).toHaveLength(1)
  expect(await readdir(dataDir)).toEqual(['server.lock'])
})

test('a data directory that cannot be is one sentence', async () => {
  const file = join(await temporaryDir(), 'file')
  await writeFile(file, '')
  await expect(acquireDataDirLock(join(file, 'data'))).rejects.toThrow(StartError)
})

test.skipIf(process.platform !== 'linux')('a data directory in /proc is refused, and not tried for ever', async () => {
  await expect(acquireDataDirLock('/proc/convolog/data')).rejects.toThrow(/^DATA_DIR \/proc\/convolog\/data cannot be used: .+\.$/)
})
