import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'

/** Whether a process with this id lives. A zombie has ended: only its parent has not looked yet. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  return procStat(pid)?.[0] !== 'Z'
}

/** When a process began, in ticks since boot: tells it from a later one with the same id. Undefined where /proc is not. */
export function startedAtTicks(pid: number): string | undefined {
  return procStat(pid)?.[19]
}

/** The arguments that a process was started with; undefined when it is gone or /proc is not there. */
export function commandLine(pid: number): string[] | undefined {
  return readText(`/proc/${pid}/cmdline`)?.split('\0').slice(0, -1)
}

/** The processes that a process has started; none where /proc is not there. */
export function childrenOf(pid: number): number[] {
  return (readText(`/proc/${pid}/task/${pid}/children`) ?? '').trim().split(' ').filter(Boolean).map(Number)
}

/** Processes of one space know each other by their ids; those of other hosts, of containers, or of before a reboot do not. */
export interface ProcessSpace {
  hostname: string
  /** Empty where the system has none. */
  bootId: string
  /** Empty where the system has none. */
  pidNamespace: string
}

export function ownProcessSpace(): ProcessSpace {
  const bootId = readText('/proc/sys/kernel/random/boot_id')?.trim() ?? ''
  return { hostname: hostname(), bootId, pidNamespace: readLink('/proc/self/ns/pid') ?? '' }
}

/** The fields of /proc/<pid>/stat after the name, which may itself hold spaces and brackets. */
function procStat(pid: number): string[] | undefined {
  const text = readText(`/proc/${pid}/stat`)
  return text?.slice(text.lastIndexOf(')') + 2).split(' ')
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}
