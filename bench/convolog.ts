/** The real server on its core, with a data folder of its own. */
import { createHmac } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Program, cpuBetween, main, removeFolder, temporaryFolder } from './processes.js'
import { worker } from './worker.js'

const secret = 'a secret for the bench alone'
export const APP_SECRET = 'bench-secret-0123456789'
/** With which every server of the benches runs. */
export const settings = {
  APP_KEYS: `bench:${APP_SECRET}`,
  JWT_SECRET: secret,
  PORT: '0',
  HOST: '127.0.0.1',
  FRAMES_PER_SECOND: '0',
  LOG_LEVEL: 'warn',
}

const FILL_MS_MAX = 300_000
const CATCH_UP_MS_MAX = 120_000
const RETRY_MS = 200
const ADDED_AT_ONCE_MAX = 1_000

/** What `fill` writes: the first member creates it and sends most of what is in it, the others have sent something too. */
export interface FilledConversation {
  conversationId: string
  memberIds: readonly string[]
  messages: number
}

export interface StartOptions {
  /** Beside those of `npm start`. */
  nodeArgs?: readonly string[]
  /** Another checkout that is built, to compare with. Default: this one. */
  serverDir?: string | undefined
  /** The server and its Postgres have the whole machine, for benches that make little load or give way. */
  onBothCores?: boolean
}

export class Convolog {
  readonly #dataDir = temporaryFolder()
  readonly #env: Record<string, string>
  readonly #command: readonly string[]
  readonly #onBothCores: boolean
  #program: Program
  #url = ''

  private constructor(more: Record<string, string>, { nodeArgs = [], serverDir, onBothCores = false }: StartOptions) {
    this.#onBothCores = onBothCores
    this.#env = { ...settings, ...more, DATA_DIR: this.#dataDir }
    this.#command = [...nodeArgs, serverDir === undefined ? main : join(serverDir, 'dist/main.js')]
    this.#program = this.#run('serve')
  }

  static async start(more: Record<string, string> = {}, options: StartOptions = {}): Promise<Convolog> {
    const convolog = new Convolog(more, options)
    await convolog.#listens()
    return convolog
  }

  get program(): Program {
    return this.#program
  }

  get url(): string {
    return this.#url
  }

  /** Postgres lies in it, and its socket. */
  get dataDir(): string {
    return this.#dataDir
  }

  /** Stops the server where it runs, and starts it on what it has written. */
  async restart(): Promise<void> {
    await this.#program.stop()
    this.#program = this.#run('serve')
    await this.#listens()
  }

  #run(command: string, options = { onBothCores: this.#onBothCores }): Program {
    return new Program([...this.#command, command], this.#env, options)
  }

  async #listens(): Promise<void> {
    const [, url = ''] = await this.#program.says(/listens on (http:\S+)/)
    this.#url = url
  }

  /** Writes conversations straight into the log, builds the read models from it, and starts the server again. */
  async fill(conversations: readonly FilledConversation[]): Promise<Replayed> {
    await this.#program.stop()
    const filling = new Program([worker('fill'), this.#dataDir, JSON.stringify(conversations)])
    await filling.result(FILL_MS_MAX)
    await filling.exited()
    const replayed = await this.replay()
    await this.restart()
    return replayed
  }

  /** A user's token, as the app's own server would make it. */
  token(userId: string): string {
    return tokenOf(userId)
  }

  /** A call of the app for a user. */
  async call<Answer>(userId: string, method: string, path: string, body?: object): Promise<Answer> {
    const headers = {
      authorization: `Bearer ${APP_SECRET}`,
      'on-behalf-of': userId,
      ...(body ? { 'content-type': 'application/json' } : {}),
    }
    const answer = await fetch(`${this.url}/v1${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return (await answer.json()) as Answer
  }

  createDirect(userId: string, otherUserId: string): Promise<{ conversationId: string; position: string }> {
    return this.call(userId, 'POST', '/conversations', { type: 'direct', memberIds: [otherUserId] })
  }

  /** A group of any size, its members added as many at a time as goes; ends when the read models have it. */
  async createGroup(ownerId: string, memberIds: readonly string[]): Promise<{ conversationId: string; head: number }> {
    const group = { type: 'group', joinPolicy: 'open', memberIds: [] }
    const { conversationId, position } = await this.call<{ conversationId: string; position: string }>(
      ownerId,
      'POST',
      '/conversations',
      group,
    )
    let last = { seq: 0, position, added: 0 }
    for (let from = 0; from < memberIds.length; from += ADDED_AT_ONCE_MAX) {
      const userIds = memberIds.slice(from, from + ADDED_AT_ONCE_MAX)
      last = await this.call(ownerId, 'POST', `/conversations/${conversationId}/members`, { userIds })
      if (last.added !== userIds.length) throw new Error(`${last.added} of ${userIds.length} members were added`)
    }
    await this.caughtUp(ownerId, last.position, CATCH_UP_MS_MAX)
    return { conversationId, head: last.seq }
  }

  async head(userId: string, conversationId: string): Promise<number> {
    const { head } = await this.call<{ head: number }>(userId, 'GET', `/conversations/${conversationId}/events?limit=1`)
    return head
  }

  /** How far the read models are behind, in positions. */
  async lag(): Promise<number> {
    const metrics = await (await fetch(`${this.url}/metrics`)).text()
    return Number(/^convolog_projection_lag_positions (\S+)$/m.exec(metrics)?.[1])
  }

  /** Resolves when the read models are at `position`; gives how long that took. */
  async caughtUp(userId: string, position: string, waitMs: number): Promise<number> {
    const startedAt = performance.now()
    for (;;) {
      try {
        await this.call(userId, 'GET', `/inbox?limit=1&minPosition=${position}`)
        return performance.now() - startedAt
      } catch (error) {
        if (performance.now() - startedAt > waitMs)
          throw new Error(`the read models did not catch up within ${waitMs} ms`, { cause: error })
      }
    }
  }

  /** Stops the server and builds the read models anew from the log that it leaves, on both cores: no generator runs. */
  async replay(): Promise<Replayed> {
    await this.#program.stop()
    const replay = this.#run('replay', { onBothCores: true })
    const [, first = ''] = await replay.says(/^(?:\d+ %, )?([\d,]+) events/)
    const before = replay.cpu()
    const [, last = '', eventsPerSecond = ''] = await replay.says(/^([\d,]+) events, ([\d,]+)\/s, done/, FILL_MS_MAX)
    const { program, children } = cpuBetween(before, replay.cpu())
    await replay.exited()
    const events = numberOf(last)
    return { events, eventsPerSecond: numberOf(eventsPerSecond), cpuMsPerEvent: (program + children) / (events - numberOf(first)) }
  }

  async stop(): Promise<void> {
    await this.#program.stop()
    removeFolder(this.#dataDir)
  }
}

export interface Replayed {
  events: number
  eventsPerSecond: number
  /** Without what starting takes. */
  cpuMsPerEvent: number
}

/** As the app's own server would make it. */
export function tokenOf(userId: string): string {
  const now = Math.floor(Date.now() / 1_000)
  const body = [
    { alg: 'HS256', typ: 'JWT' },
    { sub: userId, iat: now, exp: now + 3_600 },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`
}

const numberOf = (text: string) => Number(text.replaceAll(',', ''))

/** Runs `work` on all, so many at once. */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = []
  for (let at = 0; at < items.length; at += atOnce) results.push(...(await Promise.all(items.slice(at, at + atOnce).map(work))))
  return results
}

/** Repeats a call that is told to come later, as those are who ask for much, until it is done. */
export async function later<Answer>(call: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    try {
      return await call()
    } catch (error) {
      if (!/: (?:429|503|rate_limited|unavailable) /.test((error as Error).message)) throw error
      await sleep(RETRY_MS)
    }
  }
}
