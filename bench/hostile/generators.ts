/** The processes that make the load, as the bench holds them. */
import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { setPriority } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { FromGenerator, Job, ToGenerator } from './messages.js'

const program = fileURLToPath(new URL('./generator.js', import.meta.url))
/**
 * On their own machines the clients would take nothing from the server: here the hostile ones take what it leaves. A core that has
 * no more than such work counts as idle when the kernel looks for one on which to wake the server's processes.
 */
function giveWay(pid: number): void {
  setPriority(pid, NICEST)
  // Without chrt the clients only run at low priority.
  spawnSync('chrt', ['--all-tasks', '--idle', '--pid', '0', String(pid)], { stdio: 'ignore' })
}

const NICEST = 19
const REPORT_MS_MAX = 60_000

export class Generator {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
    process.once('exit', () => child.kill('SIGKILL'))
  }

  /** Ends when its clients are there. */
  static async start(job: Job): Promise<Generator> {
    const generator = new Generator(fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }))
    if (job.role === 'hostile') giveWay(generator.#child.pid!)
    const ready = generator.#hears('ready')
    generator.tell({ type: 'start', job })
    await ready
    return generator
  }

  tell(message: ToGenerator): void {
    if (this.#child.connected) this.#child.send(message)
  }

  async report<Report>(): Promise<Report> {
    const heard = this.#hears('report')
    this.tell({ type: 'report' })
    return ((await heard) as unknown as { report: Report }).report
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.kill('SIGKILL')
    await once(this.#child, 'exit')
  }

  #hears(type: FromGenerator['type']): Promise<FromGenerator> {
    return new Promise((resolve, reject) => {
      const impatience = setTimeout(() => reject(new Error(`a generator did not say ${type}`)), REPORT_MS_MAX)
      const listen = (message: FromGenerator) => {
        if (message.type !== type) return
        clearTimeout(impatience)
        this.#child.off('message', listen)
        resolve(message)
      }
      this.#child.on('message', listen)
    })
  }
}
