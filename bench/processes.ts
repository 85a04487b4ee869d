/** Child processes: started on the server's core, measured, and always ended. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const START_MS_MAX = 60_000
const STOP_MS_MAX = 20_000
const TICKS_PER_SECOND = 100

/** The program. */
export const main = fileURLToPath(new URL('../src/main.js', import.meta.url))
const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: { start: string } }
/** The options that `npm start` gives Node: the program has them here too, and so has what it is compared with. */
export const nodeOptions: readonly string[] = [...new Set(manifest.scripts.start.split(' ').filter((part) => part.startsWith('--')))]

/** What is measured runs on the first core, what makes the load on the second; undefined where that can't be had. */
const cores = findCores()
const running = new Set<ChildProcess>()
const folders = new Set<string>()

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

export const pinning = cores
  ? `server and Postgres on core ${cores[0]}, generator on core ${cores[1]}; a rebuild, which runs alone, on both`
  : 'not pinned: there is one core, or no taskset'

/** The cores that are measured: the server's and the generator's, or all where they are not apart. */
export const measuredCores: readonly string[] = cores ?? []

/** This process is the generator. */
export function pinGenerator(): void {
  if (cores) spawnSync('taskset', ['-acp', cores[1], String(process.pid)])
}

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'convolog-bench-'))
  folders.add(folder)
  return folder
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  folders.delete(folder)
}

/** A Node program on the server's core, or on both where nothing makes a load beside it. */
export class Program {
  readonly #child: ChildProcess
  readonly #lines: string[] = []
  #onLine: () => void = () => {}

  constructor(args: readonly string[], env: Record<string, string> = {}, { onBothCores = false } = {}) {
    const options = (process.env['BENCH_NODE_OPTIONS'] ?? '').split(' ').filter(Boolean)
    const command = [process.execPath, ...nodeOptions, ...options, ...args]
    const [first = '', ...rest] = cores ? ['taskset', '-c', onBothCores ? cores.join(',') : cores[0], ...command] : command
    this.#child = spawn(first, rest, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
    running.add(this.#child)
    this.#child.once('exit', () => {
      running.delete(this.#child)
      this.#onLine()
    })
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.#lines.push(line)
      this.#onLine()
    })
  }

  get lines(): readonly string[] {
    return this.#lines
  }

  /** What the first line that fits says. */
  async says(pattern: RegExp, waitMs = START_MS_MAX): Promise<RegExpExecArray> {
    const giveUpAt = Date.now() + waitMs
    for (;;) {
      for (const line of this.#lines) {
        const found = pattern.exec(line)
        if (found) return found
      }
      if (this.#child.exitCode !== null || Date.now() > giveUpAt)
        throw new Error(`${this.#child.spawnargs.join(' ')} did not say ${String(pattern)}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1_000)
        this.#onLine = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  async result<Result>(waitMs?: number): Promise<Result> {
    const [, json = ''] = await this.says(/^result (.*)$/, waitMs)
    return JSON.parse(json) as Result
  }

  async exited(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit')
    if (this.#child.exitCode !== 0)
      throw new Error(`${this.#child.spawnargs.join(' ')} ended with ${this.#child.exitCode ?? this.#child.signalCode}`)
  }

  async stop(): Promise<void> {
    if (!running.has(this.#child)) return
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS_MAX)
    this.#child.kill('SIGTERM')
    if (running.has(this.#child)) await once(this.#child, 'exit')
    clearTimeout(timer)
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** How it ended; undefined while it runs. */
  get ended(): string | undefined {
    const { exitCode, signalCode } = this.#child
    return exitCode === null && signalCode === null ? undefined : `code ${exitCode}, signal ${signalCode}`
  }

  /** What it holds in memory, without its children. */
  rssBytes(): number {
    return this.#statusBytes('VmRSS')
  }

  /** The most that it has held so far; 0 when it has ended. */
  rssBytesMax(): number {
    return this.#statusBytes('VmHWM')
  }

  #statusBytes(field: string): number {
    const [, kibibytes = '0'] = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(read(`/proc/${this.pid}/status`)) ?? []
    return Number(kibibytes) * 1_024
  }

  /** CPU time so far, of the program, of its children (Postgres) and of this process, in ms. */
  cpu(): Cpu {
    return cpuOf(this.#child.pid ?? 0)
  }
}

/** All in ms. */
export interface Cpu {
  at: number
  program: number
  children: number
  generator: number
}

/** CPU time so far. */
export const cpuOf = (pid: number): Cpu => ({
  at: performance.now(),
  program: cpuMs(pid),
  children: sum(descendants(pid).map((child) => cpuMs(child, true))),
  generator: cpuMs(process.pid),
})

/** CPU time so far of a program and of all that it has started, also of what has ended, in ms. */
export const familyCpuMs = (pid: number): number => cpuMs(pid, true) + sum(descendants(pid).map((child) => cpuMs(child, true)))

/** CPU time between two looks. */
export const cpuBetween = (before: Cpu, after: Cpu): Cpu => ({
  at: after.at - before.at,
  program: after.program - before.program,
  children: after.children - before.children,
  generator: after.generator - before.generator,
})

/** As shares of a core, for people: who was busy, and whether somebody else was. */
export function describeCpu({ at, program, children, generator }: Cpu): string {
  const [server = 0, postgres = 0, load = 0] = [program, children, generator].map((ms) => Math.round((ms / at) * 100))
  const others = cores && server + postgres < 85 ? ' (the server did not get its core: others were busy, or it waited)' : ''
  return `server ${server} %, Postgres ${postgres} % of one core${others}; generator ${load} % of the other`
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

/** `withEnded`: and of the children that have ended, such as connections that were closed. */
function cpuMs(pid: number, withEnded = false): number {
  const fields = read(`/proc/${pid}/stat`)
    .replace(/^.*\) /, '')
    .split(' ')
  return (sum(fields.slice(11, withEnded ? 15 : 13).map(Number)) * 1_000) / TICKS_PER_SECOND
}

/** The children of a process, theirs, and so on. */
export function descendants(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number)
  return children.flatMap((child) => [child, ...descendants(child)])
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

function findCores(): readonly [string, string] | undefined {
  if (availableParallelism() < 2) return undefined
  const { stdout, status } = spawnSync('taskset', ['-cp', String(process.pid)], { encoding: 'utf8' })
  if (status !== 0) return undefined
  const list = (stdout.split(': ')[1] ?? '')
    .trim()
    .split(',')
    .flatMap((part) => {
      const [from = '', to = from] = part.split('-')
      return Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => String(Number(from) + i))
    })
  return list[0] !== undefined && list[1] !== undefined ? [list[0], list[1]] : undefined
}
