import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { freePort } from './free-port.js'
import { APP_SECRET, JWT_SECRET, User, World, unique } from './world.js'

const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))
const START_MS_MAX = 30_000

/** A server in a process of its own, one of several. */
export class Node {
  readonly world: World
  /** What it has logged. */
  readonly lines: string[] = []
  readonly #env: Record<string, string>
  readonly #dataDir: string
  #child: ChildProcess | undefined

  private constructor(env: Record<string, string>, dataDir: string, url: string) {
    this.#env = env
    this.#dataDir = dataDir
    this.world = new World(url)
  }

  /** `env`: at least DATABASE_URL. */
  static async start(env: Record<string, string>): Promise<Node> {
    if (!existsSync(main)) throw new Error('Nodes run what is built: npm run build first')
    const dataDir = await mkdtemp(join(tmpdir(), 'convolog-node-'))
    const port = env['PORT'] ?? String(await freePort())
    const settings = {
      APP_KEYS: `app:${APP_SECRET}`,
      JWT_SECRET,
      FRAMES_PER_SECOND: '0',
      LOG_LEVEL: 'info',
      HOST: '127.0.0.1',
      PORT: port,
      DATA_DIR: dataDir,
      ...env,
    }
    const node = new Node(settings, dataDir, `http://127.0.0.1:${port}`)
    await node.restart()
    return node
  }

  get url(): string {
    return this.world.url
  }

  /** The same person, as this node knows it. */
  as({ id }: User): User {
    return new User(this.world, id)
  }

  user(prefix = 'user'): User {
    return new User(this.world, unique(prefix))
  }

  /** Starts it again on the same port. Ends when it is ready. */
  async restart(): Promise<void> {
    const child = spawn(process.execPath, [main, 'serve'], {
      env: { PATH: process.env['PATH'] ?? '', ...this.#env },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#child = child
    createInterface({ input: child.stdout }).on('line', (line) => this.lines.push(line))
    for (const giveUpAt = Date.now() + START_MS_MAX; ; await sleep(30)) {
      const isReady = await fetch(`${this.url}/health/ready`).then(
        ({ ok }) => ok,
        () => false,
      )
      if (isReady) return
      if (child.exitCode !== null || Date.now() > giveUpAt) throw new Error(`a node did not start: ${this.lines.slice(-5).join('\n')}`)
    }
  }

  /** Runs a command of the program with the settings of the node; gives what it has said. @throws when it fails */
  async command(...args: string[]): Promise<string> {
    const { stdout } = await promisify(execFile)(process.execPath, [main, ...args], {
      env: { PATH: process.env['PATH'] ?? '', ...this.#env },
    })
    return stdout
  }

  /** SIGKILL: not a word to anybody. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** Its exit code, once it has ended by itself. */
  async ended(): Promise<number | null> {
    const child = this.#child!
    if (child.exitCode === null) await once(child, 'exit')
    return child.exitCode
  }

  freeze(): void {
    this.#child?.kill('SIGSTOP')
  }

  thaw(): void {
    this.#child?.kill('SIGCONT')
  }

  /** Undoes `kill` and `freeze`: a test that failed between must not fail the next one. */
  async heal(): Promise<void> {
    if (this.#isGone) await this.restart()
    else this.thaw()
  }

  async stop(): Promise<void> {
    this.thaw()
    await this.#end('SIGTERM')
    await rm(this.#dataDir, { recursive: true, force: true })
  }

  get #isGone(): boolean {
    return this.#child === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (!child || this.#isGone) return
    child.kill(signal)
    await once(child, 'exit')
  }
}
