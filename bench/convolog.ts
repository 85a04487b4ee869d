/** The real server on its core, with a data folder of its own. */
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Program, cpuBetween, removeFolder, temporaryFolder } from './processes.js'

const secret = 'a secret for the bench alone'
const main = fileURLToPath(new URL('../src/main.js', import.meta.url))
/** Node runs the server with the options that `npm start` gives it. */
const manifest = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: { start: string } }
const nodeOptions = manifest.scripts.start.split(' ').filter((part) => part.startsWith('--'))
const settings = {
  APP_KEYS: 'bench:bench-secret-0123456789',
  JWT_SECRET: secret,
  PORT: '0',
  HOST: '127.0.0.1',
  FRAMES_PER_SECOND: '0',
  LOG_LEVEL: 'warn',
}

export class Convolog {
  readonly program: Program
  readonly url: string
  readonly #dataDir: string

  private constructor(program: Program, url: string, dataDir: string) {
    this.program = program
    this.url = url
    this.#dataDir = dataDir
  }

  static async start(): Promise<Convolog> {
    const dataDir = temporaryFolder()
    const program = new Program([...nodeOptions, main, 'serve'], { ...settings, DATA_DIR: dataDir })
    const [, url = ''] = await program.says(/listens on (http:\S+)/)
    return new Convolog(program, url, dataDir)
  }

  /** A user's token, as the app's own server would make it. */
  token(userId: string): string {
    const now = Math.floor(Date.now() / 1_000)
    const body = [
      { alg: 'HS256', typ: 'JWT' },
      { sub: userId, iat: now, exp: now + 3_600 },
    ]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`
  }

  /** A call of the app for a user. */
  async call<Answer>(userId: string, method: string, path: string, body?: object): Promise<Answer> {
    const headers = {
      authorization: 'Bearer bench-secret-0123456789',
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

  /** Stops the server and builds the read models anew from the log that it leaves. */
  async replay(): Promise<Replayed> {
    await this.program.stop()
    const replay = new Program([...nodeOptions, main, 'replay'], { ...settings, DATA_DIR: this.#dataDir })
    const [, first = ''] = await replay.says(/^(?:\d+ %, )?([\d,]+) events/)
    const before = replay.cpu()
    const [, last = '', eventsPerSecond = ''] = await replay.says(/^([\d,]+) events, ([\d,]+)\/s, done/)
    const { program, children } = cpuBetween(before, replay.cpu())
    await replay.exited()
    const events = numberOf(last)
    return { events, eventsPerSecond: numberOf(eventsPerSecond), cpuMsPerEvent: (program + children) / (events - numberOf(first)) }
  }

  async stop(): Promise<void> {
    await this.program.stop()
    removeFolder(this.#dataDir)
  }
}

export interface Replayed {
  events: number
  eventsPerSecond: number
  /** Without what starting takes. */
  cpuMsPerEvent: number
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
