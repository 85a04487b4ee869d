import { open, rm, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from './domain/logger.js'
import { makePrivateDir } from './private-files.js'
import { type ProcessSpace, isAlive, ownProcessSpace, startedAtTicks } from './processes.js'
import { StartError } from './start-error.js'

/** Another process serves from this directory. */
export class DataDirInUse extends StartError {
  override name = 'DataDirInUse'
}

export interface DataDirLock {
  /** Settles when another server has taken the directory over, because this process stood still for too long. */
  lost: Promise<Error>
  release(): Promise<void>
}

export interface DataDirLockOptions {
  logger: Logger
  times?: Partial<LockTimes>
}

export interface LockTimes {
  /** The holder writes its lock again once in this time. */
  heartbeatMs: number
  /** A lock of elsewhere is given up when its heartbeat has been missing for so long. */
  silentMsMax: number
  /** However old a heartbeat looks, it is watched for as long as several of them take: clocks differ. */
  watchMsMin: number
}

const TIMES: LockTimes = { heartbeatMs: 2_000, silentMsMax: 30_000, watchMsMin: 7_000 }

/** A holder's process id says something only to processes of the same space; the lock of an earlier version names no space. */
type Holder = { readonly pid: number; readonly startedAtTicks: string | null } & Partial<ProcessSpace>

/** A lock as it was read, and when it was last written by the clock of its file system. */
type Found = { readonly content: string; readonly beatAtMs: number }

const TRIES_MAX = 80
const TRY_AGAIN_MS = 25
const LOOK_MS = 250
const TURN_MS_MAX = 1_000

/**
 * Makes the data directory where it is missing, and this process the only server that uses it, until it releases it or ends.
 *
 * A lock of this machine and pid namespace is judged by its process, at once. That says nothing about a server in another container or
 * on another host that shares the directory: its lock holds as long as its heartbeat goes on. (`proper-lockfile` judges by heartbeats
 * alone, so that every start after a crash would have to wait for one to be missing.)
 * @throws {DataDirInUse} another server uses it
 * @throws {StartError} it cannot be used
 */
export async function acquireDataDirLock(dataDir: string, { logger, times }: DataDirLockOptions): Promise<DataDirLock> {
  const directory = resolve(dataDir)
  try {
    await makePrivateDir(directory)
    return await acquire(directory, logger, { ...TIMES, ...times })
  } catch (error) {
    if (error instanceof StartError) throw error
    throw new StartError(`DATA_DIR ${directory} cannot be used: ${(error as Error).message}.`)
  }
}

async function acquire(directory: string, logger: Logger, times: LockTimes): Promise<DataDirLock> {
  const path = join(directory, 'server.lock')
  const ticks = startedAtTicks(process.pid) ?? null
  const own = JSON.stringify({ pid: process.pid, startedAtTicks: ticks, ...ownProcessSpace() } satisfies Holder)
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    if (await createFile(path, own)) return new HeldLock(path, own, times.heartbeatMs)
    const found = await read(path)
    const holder = found && parse(found.content)
    if (holder && isOfHere(holder) && isRunning(holder)) throw inUse(directory, `process ${holder.pid}`)
    if (found && holder && !isOfHere(holder)) await waitForEnd(directory, path, { found, holder }, logger, times)
    // A file that says nothing yet is just being written by another start, unless that broke off: then it stays so.
    if (found && (holder || tries > TRIES_MAX / 2)) await takeAway(path, found)
    else await sleep(TRY_AGAIN_MS)
  }
  throw inUse(directory, undefined)
}

function inUse(directory: string, holder: string | undefined): StartError {
  const who = holder === undefined ? 'another server' : `another server (${holder})`
  return new DataDirInUse(`DATA_DIR ${directory} is in use by ${who}: stop that one, or give this one another DATA_DIR.`)
}

function isOfHere({ hostname, bootId, pidNamespace }: Holder): boolean {
  const here = ownProcessSpace()
  return hostname === undefined || (hostname === here.hostname && bootId === here.bootId && pidNamespace === here.pidNamespace)
}

function isRunning({ pid, startedAtTicks: ticks }: Holder): boolean {
  return isAlive(pid) && (ticks === null || startedAtTicks(pid) === ticks)
}

/** Returns once the lock has not been written again in time, or is not the same any more. @throws {DataDirInUse} it is written again */
async function waitForEnd(
  directory: string,
  path: string,
  { found, holder }: { found: Found; holder: Holder },
  logger: Logger,
  { silentMsMax, watchMsMin }: LockTimes,
): Promise<void> {
  logger.info({ holder }, 'DATA_DIR was used by a server in another container or on another host: waiting to see whether it runs')
  const ageMs = Math.max(0, (await fileSystemNowMs(path)) - found.beatAtMs)
  const until = performance.now() + Math.max(watchMsMin, silentMsMax - ageMs)
  while (performance.now() < until) {
    await sleep(LOOK_MS)
    const now = await read(path)
    if (now?.content !== found.content) return
    if (now.beatAtMs !== found.beatAtMs) throw inUse(directory, `process ${holder.pid} of another container or host, ${holder.hostname}`)
  }
  logger.warn({ holder }, 'The server in another container or on another host has ended without giving DATA_DIR back: taking it over')
}

/** The lock of this process, written again and again for those who cannot see the process. */
class HeldLock implements DataDirLock {
  readonly lost: Promise<Error>
  readonly #path: string
  readonly #own: string
  readonly #timer: NodeJS.Timeout
  #beating: Promise<void> = Promise.resolve()
  #lose!: (error: Error) => void

  constructor(path: string, own: string, heartbeatMs: number) {
    this.#path = path
    this.#own = own
    this.lost = new Promise((resolve) => {
      this.#lose = resolve
    })
    this.#timer = setInterval(() => {
      this.#beating = this.#beating.then(() => this.#beat())
    }, heartbeatMs).unref()
  }

  async release(): Promise<void> {
    clearInterval(this.#timer)
    await this.#beating
    if ((await read(this.#path))?.content === this.#own) await rm(this.#path, { force: true })
  }

  /** A disk that fails is somebody else's to notice: the next beat tries again. */
  async #beat(): Promise<void> {
    try {
      if (await rewrite(this.#path, this.#own)) return
      clearInterval(this.#timer)
      this.#lose(new Error('Another server has taken DATA_DIR over, because this one stood still: give each server its own DATA_DIR'))
    } catch {
      // See above.
    }
  }
}

/**
 * Writes the same text over itself, which moves the file's time by the clock of its file system. False: it holds another text.
 * The file is opened anew each time: only then do clients of a network file system tell each other.
 */
async function rewrite(path: string, own: string): Promise<boolean> {
  const file = await open(path, 'r+').catch(ifMissing)
  if (!file) return createFile(path, own)
  try {
    if ((await file.readFile('utf8')) !== own) return false
    await file.write(own, 0)
    return true
  } finally {
    await file.close()
  }
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
async function takeAway(path: string, stale: Found): Promise<void> {
  const turn = `${path}.taking`
  if (!(await createFile(turn, ''))) {
    await removeLeftover(turn)
    await sleep(TRY_AGAIN_MS)
    return
  }
  try {
    const found = await read(path)
    if (found?.content === stale.content && found.beatAtMs === stale.beatAtMs) await rm(path, { force: true })
  } finally {
    await rm(turn, { force: true })
  }
}

/** A start that was killed while it had its turn does not block the next one for ever. */
async function removeLeftover(turn: string): Promise<void> {
  const found = await stat(turn).catch(ifMissing)
  if (found && (await fileSystemNowMs(turn)) - found.mtimeMs > TURN_MS_MAX) await rm(turn, { force: true })
}

/** The time by the clock that stamps the files beside `path`, which may be another host's. */
async function fileSystemNowMs(path: string): Promise<number> {
  const probe = `${path}.${process.pid}-${Math.random().toString(36).slice(2)}`
  await writeFile(probe, '')
  try {
    return (await stat(probe)).mtimeMs
  } finally {
    await rm(probe, { force: true })
  }
}

async function read(path: string): Promise<Found | undefined> {
  const file = await open(path, 'r').catch(ifMissing)
  if (!file) return undefined
  try {
    return { content: await file.readFile('utf8'), beatAtMs: (await file.stat()).mtimeMs }
  } finally {
    await file.close()
  }
}

function ifMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

function parse(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Partial<Holder> | null
    return typeof holder?.pid === 'number' ? { ...holder, pid: holder.pid, startedAtTicks: holder.startedAtTicks ?? null } : undefined
  } catch {
    return undefined
  }
}
