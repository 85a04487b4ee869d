import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { makePrivateDir } from './private-files.js'
import { isAlive, startedAtTicks } from './processes.js'
import { StartError } from './start-error.js'

/** Another process serves from this directory. */
export class DataDirInUse extends StartError {
  override name = 'DataDirInUse'
}

export type DataDirLock = { release(): Promise<void> }

type Holder = { readonly pid: number; readonly startedAtTicks: string | null }

const TRIES_MAX = 80
const TRY_AGAIN_MS = 25
const TURN_MS_MAX = 1_000

/** Makes the data directory where it is missing, and this process the only server that uses it, until it releases it or ends. */
export async function acquireDataDirLock(dataDir: string): Promise<DataDirLock> {
  const directory = resolve(dataDir)
  try {
    await makePrivateDir(directory)
    return await acquire(directory, join(directory, 'server.lock'))
  } catch (error) {
    if (error instanceof StartError) throw error
    throw new StartError(`DATA_DIR ${directory} cannot be used: ${(error as Error).message}.`)
  }
}

async function acquire(directory: string, path: string): Promise<DataDirLock> {
  const own = JSON.stringify({ pid: process.pid, startedAtTicks: startedAtTicks(process.pid) ?? null } satisfies Holder)
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    if (await createFile(path, own)) return { release: () => release(path, own) }
    const found = await read(path)
    const holder = found === undefined ? undefined : parse(found)
    if (holder && isHeld(holder)) throw inUse(directory, holder.pid)
    // A file that says nothing yet is just being written by another start, unless that broke off: then it stays so.
    if (found !== undefined && (holder || tries > TRIES_MAX / 2)) await takeAway(path, found)
    else await sleep(TRY_AGAIN_MS)
  }
  throw inUse(directory, undefined)
}

function inUse(directory: string, pid: number | undefined): StartError {
  const who = pid === undefined ? 'another server' : `another server (process ${pid})`
  return new DataDirInUse(`DATA_DIR ${directory} is in use by ${who}: stop that one, or give this one another DATA_DIR.`)
}

function isHeld({ pid, startedAtTicks: ticks }: Holder): boolean {
  return isAlive(pid) && (ticks === null || startedAtTicks(pid) === ticks)
}

async function createFile(path: string, content: string): Promise<boolean> {
  try {
    await writeFile(path, content, { flag: 'wx', mode: 0o600 })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/**
 * Removes a stale lock. One start at a time may do so, and looks again first: otherwise one that found the old lock
 * could remove the new one of another start.
 */
async function takeAway(path: string, stale: string): Promise<void> {
  const turn = `${path}.taking`
  if (!(await createFile(turn, ''))) {
    await removeLeftover(turn)
    await sleep(TRY_AGAIN_MS)
    return
  }
  try {
    if ((await read(path)) === stale) await rm(path, { force: true })
  } finally {
    await rm(turn, { force: true })
  }
}

/** A start that was killed while it had its turn does not block the next one for ever. */
async function removeLeftover(turn: string): Promise<void> {
  const found = await stat(turn).catch(() => undefined)
  if (found && Date.now() - found.mtimeMs > TURN_MS_MAX) await rm(turn, { force: true })
}

async function release(path: string, own: string): Promise<void> {
  if ((await read(path)) === own) await rm(path, { force: true })
}

async function read(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
}

function parse(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Partial<Holder> | null
    return typeof holder?.pid === 'number' ? { pid: holder.pid, startedAtTicks: holder.startedAtTicks ?? null } : undefined
  } catch {
    return undefined
  }
}
