import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { BaseLogger } from 'pino'
import { type Cluster, isReady, stopPostmaster } from './cluster.js'

// For a machine that also runs the server: what is not here is Postgres' own default.
const defaults = {
  listen_addresses: '',
  // Relative to the cluster's folder, so that no path is too long for a socket.
  unix_socket_directories: '.',
  max_connections: 50,
  shared_buffers: '256MB',
  max_wal_size: '4GB',
  checkpoint_timeout: '15min',
  fsync: 'on',
  synchronous_commit: 'on',
  jit: 'off',
  max_parallel_workers_per_gather: 0,
  update_process_title: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_line_prefix: '',
  // Errors of statements go to who sent them; the log is for what concerns the server.
  log_min_messages: 'log',
  log_checkpoints: 'off',
}

const READY_MS_MAX = 600_000
const READY_POLL_MS = 10
const LINES_KEPT_MAX = 20

/** One run of the Postgres server on a cluster. */
export class PostgresProcess {
  /** Settles, with a few words, when it has ended, for whatever reason. */
  readonly exited: Promise<string>
  readonly #child: ChildProcess
  readonly #cluster: Cluster
  readonly #lines: string[] = []
  #hasEnded = false
  #isExpectedToServe = false

  constructor(cluster: Cluster, logger: BaseLogger, settings: Readonly<Record<string, string | number>> = {}) {
    const { dir, binaries, runAs } = cluster
    const options = Object.entries({ ...defaults, ...settings }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const [command = binaries.postgres, ...args] = [...runAs.wrapper, binaries.postgres, '-D', dir, ...options]
    this.#cluster = cluster
    // A session of its own: Ctrl-C in the terminal must not reach it before the server has drained.
    this.#child = spawn(command, args, { ...runAs.spawnOptions, detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
    this.exited = this.#ended()
    this.#readLog(logger)
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Waits until it accepts connections, which takes longer when it has to recover from a crash. */
  async ready(signal?: AbortSignal): Promise<void> {
    const deadline = Date.now() + READY_MS_MAX
    while (!(await isReady(this.#cluster, this.pid ?? 0))) {
      if (this.#hasEnded) throw new Error(`${await this.exited}: ${this.#reason()}`)
      if (signal?.aborted) throw new Error('it was told to stop')
      if (Date.now() > deadline) throw new Error(`it was not ready within ${READY_MS_MAX / 1000} s`)
      await sleep(READY_POLL_MS)
    }
    this.#isExpectedToServe = true
  }

  async stop(withinMs?: number): Promise<void> {
    this.#isExpectedToServe = false
    if (this.pid !== undefined && !this.#hasEnded) await stopPostmaster(this.pid, withinMs)
    await this.exited
  }

  #ended(): Promise<string> {
    return new Promise((resolve) => {
      const end = (how: string) => {
        this.#hasEnded = true
        resolve(how)
      }
      this.#child.once('error', (error) => end(`it could not be run (${error.message})`))
      this.#child.once('exit', (code, signal) => end(signal ? `it was ended by ${signal}` : `it ended with code ${code}`))
    })
  }

  #readLog(logger: BaseLogger): void {
    if (!this.#child.stderr) return
    createInterface({ input: this.#child.stderr }).on('line', (line) => {
      this.#lines.push(line)
      if (this.#lines.length > LINES_KEPT_MAX) this.#lines.shift()
      const isTrouble = this.#isExpectedToServe && /^(WARNING|FATAL|PANIC):/.test(line)
      logger[isTrouble ? 'warn' : 'debug']({ postgres: line }, 'Postgres says')
    })
  }

  #reason(): string {
    return this.#lines.findLast((line) => /^(FATAL|PANIC):|^postgres: /.test(line)) ?? this.#lines.at(-1) ?? 'it gave no reason'
  }
}
