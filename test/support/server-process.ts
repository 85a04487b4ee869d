import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isAlive } from '../../src/processes.js'
import { freePort } from './free-port.js'
import { signalFamily } from './postgres.js'
import { APP_SECRET, JWT_SECRET, World } from './world.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** As `npm test` has built it. */
const main = process.env['CONVOLOG_MAIN'] ?? join(root, 'dist/main.js')
/** A first start makes a cluster and waits for the disk: on a busy one that takes its time. */
const READY_MS_MAX = 120_000

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

/** The built program as a process of its own, with its own Postgres, on one port and one data directory over all its lives. */
export class ServerProcess {
  readonly world: World
  readonly dataDir: string
  readonly #env: Record<string, string>
  readonly #port: number
  #child!: ChildProcess
  #exit!: Promise<Exit>
  #isToldToEnd = false
  /** What this life has said. */
  output = ''

  private constructor(dataDir: string, port: number, env: Record<string, string>) {
    this.dataDir = dataDir
    this.#port = port
    this.#env = env
    this.world = new World(`http://127.0.0.1:${port}`)
  }

  /** Ready to serve, until `end`. */
  static async start(env: Record<string, string> = {}): Promise<ServerProcess> {
    const dataDir = await realpath(await mkdtemp(join(tmpdir(), 'convolog-test-')))
    const server = new ServerProcess(dataDir, await freePort(), env)
    server.#spawn()
    await server.ready()
    return server
  }

  /** Another one with the same settings, on a port of its own, that is not meant to stay; run by `wrapper`, if any. */
  async startAnother(wrapper: readonly string[] = []): Promise<{ exit: Exit; output: string }> {
    const other = new ServerProcess(this.dataDir, await freePort(), this.#env)
    other.#spawn(wrapper)
    const impatience = setTimeout(() => other.signal('SIGKILL'), READY_MS_MAX)
    const exit = await other.#exit
    clearTimeout(impatience)
    return { exit, output: other.output }
  }

  get exited(): Promise<Exit> {
    return this.#exit
  }

  signal(name: NodeJS.Signals): void {
    this.#isToldToEnd = true
    this.#child.kill(name)
  }

  /** SIGKILL, and the next life. Its Postgres outlives it, as it does in life. */
  async crash(): Promise<void> {
    this.signal('SIGKILL')
    await this.#exit
    await this.restart()
  }

  async restart(): Promise<void> {
    this.#spawn()
    await this.ready()
  }

  /** It answers, and so do its log and its read models. */
  async ready(): Promise<void> {
    const end = performance.now() + READY_MS_MAX
    while (!(await this.#answers())) {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error(`the server has ended: ${this.output}`)
      if (performance.now() > end) throw new Error(`the server is not ready: ${this.output}`)
      await sleep(20)
    }
  }

  /** The postmaster of its Postgres, as long as there is one. */
  get postgresPid(): number | undefined {
    const file = join(this.dataDir, 'postgres/postmaster.pid')
    if (!existsSync(file)) return undefined
    const pid = Number.parseInt(readFileSync(file, 'utf8'), 10)
    return isAlive(pid) ? pid : undefined
  }

  /** To Postgres and all its children. */
  signalPostgres(name: NodeJS.Signals): void {
    signalFamily(this.postgresPid!, name)
  }

  async #answers(): Promise<boolean> {
    return this.world.call('/health/ready').then(
      ({ status }) => status === 200,
      () => false,
    )
  }

  /** Undoes what a test that failed has left undone: the next one must not fail for that. */
  async heal(): Promise<void> {
    if (this.postgresPid !== undefined) this.signalPostgres('SIGCONT')
    const { exitCode, signalCode } = this.#child
    if (this.#isToldToEnd || exitCode !== null || signalCode !== null) await this.crash()
  }

  #spawn(wrapper: readonly string[] = []): void {
    this.output = ''
    this.#isToldToEnd = false
    const [command, ...args] = [...wrapper, process.execPath, main, 'serve']
    this.#child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        HOST: '127.0.0.1',
        PORT: String(this.#port),
        DATA_DIR: this.dataDir,
        APP_KEYS: `app:${APP_SECRET}`,
        JWT_SECRET,
        FRAMES_PER_SECOND: '0',
        LOG_LEVEL: 'error',
        ...this.#env,
      },
    })
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.on('data', (data: Buffer) => {
        this.output += data.toString()
      })
    // 'close' comes after 'exit', when all it has said is here.
    this.#exit = once(this.#child, 'close').then(([code, signal]) => ({ code, signal }))
  }

  /** Whatever has become of it, nothing is left. */
  async end(): Promise<void> {
    this.world.endDevices()
    this.signal('SIGKILL')
    await this.#exit
    const pid = this.postgresPid
    if (pid !== undefined) signalFamily(pid, 'SIGKILL')
    while (pid !== undefined && isAlive(pid)) await sleep(10)
    await rm(this.dataDir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }
}
