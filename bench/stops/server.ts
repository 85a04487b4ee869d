/** A server over many lives on one data folder, started by npm or without it, and stopped by a signal to what was started. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { isAlive, startedAtTicks } from '../../src/processes.js'
import { settings } from '../convolog.js'
import { descendants, nodeOptions, temporaryFolder } from '../processes.js'

const READY_MS_MAX = 120_000
/** More than twice what is promised; then it is ended by force, and counts as never stopped. */
const STOP_MS_MAX = 40_000
const LOOK_EVERY_MS = 20

export type Starter = 'npm' | 'node'

export interface Stop {
  ms: number
  /** Of what was started: npm's where npm was. */
  exit: string
  /** Processes of its family before the signal, and those that are left when it has ended. */
  before: number
  left: number
  inTime: boolean
}

export class StoppedServer {
  readonly url: string
  readonly #dir: string
  readonly #env: Record<string, string | undefined>
  #child: ChildProcess | undefined
  /** What this life has said. */
  output = ''

  constructor(dir: string, port: number) {
    this.#dir = dir
    this.url = `http://127.0.0.1:${port}`
    this.#env = { ...process.env, ...settings, PORT: String(port), DATA_DIR: temporaryFolder(), LOG_LEVEL: 'warn' }
    process.once('exit', () => {
      for (const pid of this.#family()) kill(pid, 'SIGKILL')
    })
  }

  /** Ends when it is ready. */
  async start(starter: Starter): Promise<void> {
    const [command, ...args] = starter === 'npm' ? ['npm', 'start'] : [process.execPath, ...nodeOptions, 'scripts/start.mjs']
    this.output = ''
    this.#child = spawn(command, args, { cwd: this.#dir, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) stream.on('data', (data: Buffer) => (this.output += data.toString()))
    for (const giveUpAt = performance.now() + READY_MS_MAX; performance.now() < giveUpAt; await sleep(LOOK_EVERY_MS)) {
      const isReady = await fetch(`${this.url}/health/ready`).then(
        ({ ok }) => ok,
        () => false,
      )
      if (isReady) return
      if (this.#child.exitCode !== null) break
    }
    throw new Error(`the server did not start: ${this.output}`)
  }

  /** Signals what was started, nothing below it, and waits until it has ended. */
  async stop(signal: NodeJS.Signals): Promise<Stop> {
    const child = this.#child!
    const seen = new Map(this.#family().map((pid) => [pid, startedAtTicks(pid)]))
    const before = seen.size
    const startedAt = performance.now()
    const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
    child.kill(signal)
    let exit: string | undefined
    void exited.then(([code, by]) => {
      exit = code === null ? String(by) : `code ${code}`
    })
    const alive = () => [...seen].filter(([pid, ticks]) => isAlive(pid) && startedAtTicks(pid) === ticks).map(([pid]) => pid)
    // npm dies of a SIGHUP at once, and what it has started ends a moment later.
    while ((exit === undefined || alive().length > 0) && performance.now() - startedAt < STOP_MS_MAX) {
      await sleep(LOOK_EVERY_MS)
      for (const pid of this.#family()) seen.set(pid, startedAtTicks(pid))
    }
    const ms = performance.now() - startedAt
    const left = alive()
    for (const pid of left) kill(pid, 'SIGKILL')
    while (left.some(isAlive)) await sleep(LOOK_EVERY_MS)
    return { ms, exit: exit ?? 'never', before, left: left.length, inTime: exit !== undefined }
  }

  #family(): number[] {
    const pid = this.#child?.pid
    return pid === undefined || !isAlive(pid) ? [] : [pid, ...descendants(pid)]
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has just ended.
  }
}
