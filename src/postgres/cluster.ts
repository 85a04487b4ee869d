import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { chmod, chown, lstat, mkdir, readdir, readFile, realpath, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { syncDir } from '../private-files.js'
import { childrenOf, commandLine, isAlive } from '../processes.js'
import { StartError } from '../start-error.js'
import { findBinaries, type PostgresBinaries } from './binaries.js'
import { chooseRunAs, type RunAs } from './run-as.js'

/** A Postgres cluster on the disk that nobody serves now, and how to serve it. */
export type Cluster = { readonly dir: string; readonly binaries: PostgresBinaries; readonly runAs: RunAs }

/** The role that owns everything in the cluster; only who can enter the cluster's folder can connect at all. */
export const CLUSTER_ROLE = 'convolog'

const STOP_MS_MAX = 12_000
/** Of that, at least, for the immediate shutdown, and for the end after SIGKILL. */
const IMMEDIATE_STOP_MS = 1_500
const KILL_MS = 500
const UNFINISHED = 'postgres.new-'

const execute = promisify(execFile)

/** The place of the cluster in a data directory, whether it is there or not. */
export async function clusterDir(dataDir: string): Promise<string> {
  return join(await realpath(dataDir), 'postgres')
}

/** Opens the cluster of a data directory, which is made on the first start. The caller holds the directory's lock. */
export async function openCluster(dataDir: string, signal?: AbortSignal): Promise<Cluster> {
  const dir = await clusterDir(dataDir)
  const root = dirname(dir)
  const binaries = await findBinaries()
  const runAs = chooseRunAs(dir, [root, binaries.initdb, binaries.postgres, join(binaries.bootstrapFile, '..')])
  const cluster = { dir, binaries, runAs }
  await removeUnfinished(root)
  if (await isMissing(cluster)) await initialise(cluster, join(root, `${UNFINISHED}${randomUUID()}`), signal)
  await makeOwn(cluster)
  return cluster
}

/** Ends what a killed predecessor left running on this cluster, and removes a pid file that would hold the start up for nothing. */
export async function clearLeftover({ dir }: Cluster): Promise<void> {
  const pidFile = join(dir, 'postmaster.pid')
  const pid = await readPid(pidFile)
  if (pid === undefined) return
  if (await serves(pid, dir)) await stopPostmaster(pid)
  // The number belongs to another program by now, which Postgres would take for itself.
  else if (isAlive(pid)) for (const file of [pidFile, join(dir, '.s.PGSQL.5432.lock')]) await rm(file, { force: true })
}

/** Fast shutdown, and when that takes too long the immediate one, after which the next start recovers from the log. */
export async function stopPostmaster(pid: number, withinMs = STOP_MS_MAX): Promise<void> {
  if (await end(pid, 'SIGINT', Math.max(0, withinMs - IMMEDIATE_STOP_MS - KILL_MS))) return
  if (await end(pid, 'SIGQUIT', IMMEDIATE_STOP_MS)) return
  // One that stands still hears nothing else, and neither do its children, which would outlive it.
  const children = childrenOf(pid)
  await end(pid, 'SIGKILL', KILL_MS)
  for (const child of children) await end(child, 'SIGKILL', 0)
}

async function end(pid: number, signal: NodeJS.Signals, waitMsMax: number): Promise<boolean> {
  const deadline = Date.now() + waitMsMax
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true
    throw error
  }
  while (isAlive(pid)) {
    if (Date.now() > deadline) return false
    await sleep(10)
  }
  return true
}

/** The process id and, once it is so, "ready" stand in the first and the eighth line of Postgres' own pid file. */
export async function isReady({ dir }: Cluster, pid: number): Promise<boolean> {
  const status = await readStatus(dir)
  return status.pid === pid && status.isReady
}

/** Whether some process serves the cluster in this folder. */
export async function isServed(dir: string): Promise<boolean> {
  return (await readStatus(dir)).isReady
}

async function readStatus(dir: string): Promise<{ pid: number; isReady: boolean }> {
  const lines = (await readFile(join(dir, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
  return { pid: Number(lines[0]), isReady: lines[7]?.trim() === 'ready' }
}

async function readPid(pidFile: string): Promise<number | undefined> {
  const pid = Number.parseInt(await readFile(pidFile, 'utf8').catch(() => ''), 10)
  return pid > 0 ? pid : undefined
}

async function serves(pid: number, dir: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  const command = commandLine(pid)?.join(' ') ?? (await execute('ps', ['-o', 'command=', '-p', String(pid)]).catch(() => undefined))?.stdout
  return command?.includes(`-D ${dir} `) ?? false
}

async function removeUnfinished(root: string): Promise<void> {
  const unfinished = (await readdir(root)).filter((name) => name.startsWith(UNFINISHED))
  for (const name of unfinished) await rm(join(root, name), { recursive: true, force: true })
}

async function isMissing({ dir }: Cluster): Promise<boolean> {
  const found = await readdir(dir).catch((error: NodeJS.ErrnoException): string[] => {
    if (error.code === 'ENOENT') return []
    throw new StartError(`The cluster in ${dir} cannot be read (${error.code}): start the server as the user who owns it.`)
  })
  if (found.length > 0 && !found.includes('PG_VERSION')) throw new StartError(`${dir} holds something that is no Postgres cluster.`)
  return found.length === 0
}

/** Made beside its place and then moved there: a start that breaks off leaves nothing that looks like a cluster. */
async function initialise({ dir, binaries, runAs }: Cluster, temporary: string, signal: AbortSignal | undefined): Promise<void> {
  await mkdir(temporary, { mode: 0o700 })
  if (runAs.user) await chown(temporary, runAs.user.uid, runAs.user.gid)
  const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
  // No passwords: the server listens on a socket in a folder that nobody but its user can enter, and nowhere else.
  const args = ['-D', temporary, '-U', CLUSTER_ROLE, '--auth=trust', ...locale, '--no-instructions']
  const [command = binaries.initdb, ...rest] = [...runAs.wrapper, binaries.initdb, ...args]
  try {
    await execute(command, rest, { ...runAs.spawnOptions, signal })
    await rename(temporary, dir)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    const { stderr, message } = error as Error & { stderr?: string }
    throw new StartError(`The embedded Postgres could not be set up in ${dir}: ${lastLine(stderr) ?? message}`)
  }
  await syncDir(join(dir, '..'))
}

/** A cluster that root has copied or restored belongs to root, and Postgres would refuse it. */
async function makeOwn({ dir, runAs: { user } }: Cluster): Promise<void> {
  const { uid } = await lstat(dir)
  const wanted = user?.uid ?? process.getuid?.() ?? uid
  if (user && uid !== wanted) await execute('chown', ['-R', `${user.uid}:${user.gid}`, dir])
  else if (uid !== wanted) throw new StartError(`The cluster in ${dir} belongs to user ${uid}: start the server as that user.`)
  await chmod(dir, 0o700)
}

function lastLine(text: string | undefined): string | undefined {
  return text?.trim().split('\n').at(-1) || undefined
}
