import { setTimeout as delay } from 'node:timers/promises'
import { type ChainableCommander, Redis } from 'ioredis'
import { unavailable } from '../domain/errors.js'
import type { Logger } from '../domain/logger.js'
import { type ScriptName, scripts } from './scripts.js'

/** What Redis would have done is not done, or nobody knows: whoever asked goes on without. */
export class RedisGone extends Error {}

const CONNECT_MS_MAX = 5_000
/** A server that says nothing for so long is given up; it is back when it answers. */
const ANSWER_MS_MAX = 2_000
const FIRST_CONNECT_MS_MAX = 2_000
const GOODBYE_MS_MAX = 100
const BACK_OFF_MS_MIN = 50
const BACK_OFF_MS_MAX = 2_000
/** Commands that wait for their answers; more fail at once. */
const IN_FLIGHT_MAX = 20_000

export interface RedisLinkOptions {
  url: string
  logger: Logger
  /** Channels to listen to. */
  channels: readonly string[]
}

type Shas = Readonly<Record<ScriptName, string>>

/** Commands of one batch; scripts by name, their keys first. */
export interface Batch {
  redis: ChainableCommander
  script(name: ScriptName, keys: readonly string[], args: readonly (string | number)[]): void
}

/**
 * One connection for commands and one that listens, each replaced for ever when it is lost. Nothing is queued while they are
 * gone: a command fails at once, and what has to be there is written anew when they are back.
 */
export class RedisLink {
  readonly #options: RedisLinkOptions
  readonly #commands: Redis
  readonly #listener: Redis
  #shas: Shas | undefined
  #inFlight = 0
  #isUp = false
  #isClosed = false
  #lostSaid = false
  #lastError = ''
  readonly #upListeners: (() => void)[] = []
  onMessage: (text: string) => void = () => {}

  private constructor(options: RedisLinkOptions) {
    this.#options = options
    this.#commands = connectionTo(options.url)
    this.#listener = connectionTo(options.url)
    for (const redis of [this.#commands, this.#listener]) {
      redis.on('error', (error) => {
        this.#lastError = error.message
      })
      redis.on('ready', () => void this.#becomeUp())
      redis.on('close', () => this.#down())
    }
    this.#listener.on('message', (_channel, text) => this.onMessage(text))
  }

  /** Connects; where that takes long or fails the server starts without, and takes it in when it is there. */
  static async open(options: RedisLinkOptions): Promise<RedisLink> {
    const link = new RedisLink(options)
    const up = new Promise<void>((resolve) => link.onUp(resolve))
    for (const redis of [link.#commands, link.#listener]) redis.connect().catch(() => {})
    const enough = new AbortController()
    await Promise.race([up, delay(FIRST_CONNECT_MS_MAX, undefined, { signal: enough.signal }).catch(() => {})])
    enough.abort()
    if (!link.#isUp) link.#sayLost()
    return link
  }

  get isUp(): boolean {
    return this.#isUp
  }

  /** Called each time that Redis is there (again). */
  onUp(listener: () => void): void {
    this.#upListeners.push(listener)
  }

  /** Sends a batch in one write; gives the answers in order. @throws {RedisGone} */
  async batch(fill: (batch: Batch) => void): Promise<unknown[]> {
    const shas = this.#shas
    if (!this.#isUp || !shas) throw new RedisGone('Redis can not be reached')
    const redis = this.#commands.pipeline()
    fill({ redis, script: (name, keys, args) => void redis.evalsha(shas[name], keys.length, ...keys, ...args) })
    if (redis.length === 0) return []
    if (this.#inFlight + redis.length > IN_FLIGHT_MAX) throw new RedisGone('Redis is too slow')
    const { length } = redis
    this.#inFlight += length
    const results = await redis
      .exec()
      .catch((error: unknown) => [[error as Error, undefined]] as [Error, undefined][])
      .finally(() => {
        this.#inFlight -= length
      })
    const failed = results?.find(([error]) => error)?.[0]
    if (failed) throw this.#failureOf(failed)
    return (results ?? []).map(([, answer]) => answer)
  }

  #failureOf(error: Error): Error {
    const isRefusal = error.name === 'ReplyError' && !error.message.startsWith('NOSCRIPT')
    if (isRefusal) return error
    // Scripts were flushed under way: with the next connection they are there again.
    if (error.name === 'ReplyError') this.#commands.disconnect(true)
    else if (this.#isUp) this.#giveUp(`no answer within ${ANSWER_MS_MAX} ms`)
    return new RedisGone('Redis has not answered', { cause: error })
  }

  /**
   * A line that says nothing would not break by itself for a long time. (ioredis has a time-out for that, but its clock outlives
   * the socket and ends the next one, just when it works.)
   */
  #giveUp(reason: string): void {
    this.#lastError ||= reason
    this.#down()
    for (const redis of [this.#commands, this.#listener]) redis.disconnect(true)
  }

  /** To whoever listens now. Dropped when Redis is gone. */
  publish(channel: string, text: string): void {
    this.batch(({ redis }) => void redis.publish(channel, text)).catch(() => {})
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#isUp = false
    this.#commands.disconnect()
    this.#listener.disconnect()
  }

  async #becomeUp(): Promise<void> {
    if (this.#commands.status !== 'ready' || this.#listener.status !== 'ready' || this.#isClosed) return
    try {
      await this.#listener.subscribe(...this.#options.channels)
      const names = Object.keys(scripts) as ScriptName[]
      const shas = await Promise.all(names.map((name) => this.#commands.script('LOAD', scripts[name])))
      this.#shas = Object.fromEntries(names.map((name, i) => [name, shas[i]])) as Shas
    } catch (error) {
      this.#giveUp(String(error))
      return
    }
    if (this.#isUp || this.#commands.status !== 'ready' || this.#listener.status !== 'ready') return
    this.#isUp = true
    this.#lastError = ''
    if (this.#lostSaid) this.#options.logger.info({}, 'Redis is back')
    this.#lostSaid = false
    for (const listener of this.#upListeners) listener()
  }

  #down(): void {
    if (!this.#isUp || this.#isClosed) return
    this.#isUp = false
    this.#sayLost()
  }

  /** Once, however often the next try fails. */
  #sayLost(): void {
    if (this.#lostSaid) return
    this.#lostSaid = true
    this.#options.logger.warn(
      { reason: this.#lastError || 'the connection was closed' },
      'Redis is lost: presence, typing and limits over several nodes stop until it is back',
    )
  }
}

function connectionTo(url: string): Redis {
  return new Redis(url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_MS_MAX,
    commandTimeout: ANSWER_MS_MAX,
    // A goodbye to a line that is given up is not waited for.
    disconnectTimeout: GOODBYE_MS_MAX,
    autoResubscribe: false,
    keepAlive: 10_000,
    // Jittered, so that nodes don't come back in step.
    retryStrategy: (attempt) => BACK_OFF_MS_MIN + Math.random() * Math.min(BACK_OFF_MS_MAX, BACK_OFF_MS_MIN * 2 ** Math.min(attempt, 10)),
  })
}

/** For answers to clients: what only Redis knows can't be said now. */
export function asRefusal(error: unknown): unknown {
  return error instanceof RedisGone ? unavailable('Who is online can not be said now: ask again.', error) : error
}
