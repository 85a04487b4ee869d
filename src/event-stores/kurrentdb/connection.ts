import type { EventStoreDBClient } from '@eventstore/db-client'
import type { Logger } from '../../domain/logger.js'
import { clientOf } from './connection-string.js'
import { isTransient } from './errors.js'
import { closeClient, prepareClient } from './internals.js'

const backAfterMs = 1000

/** One client, as long as it works. */
export class Session {
  readonly client: EventStoreDBClient
  /** Sent with each call: where the client picks the leader by itself, only the leader shall answer, so that reads never lag. */
  readonly requiresLeader: boolean
  /** When the server last said anything. */
  heardAt = -Infinity
  readonly #listeners = new Set<() => void>()
  #ended = false

  constructor(client: EventStoreDBClient, requiresLeader: boolean) {
    this.client = client
    this.requiresLeader = requiresLeader
  }

  /** Calls back once when the client is given up: what runs on it hears nothing more. Gives the way to take that back. */
  onEnd(listener: () => void): () => void {
    if (this.#ended) listener()
    else this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Ends all calls and closes the sockets. */
  async end(): Promise<void> {
    this.#ended = true
    for (const listener of this.#listeners) listener()
    this.#listeners.clear()
    await closeClient(this.client)
  }
}

/** The way to the cluster: a client that is replaced when it fails. (It keeps what it once could not discover.) */
export class Connection {
  readonly #connectionString: string
  readonly #logger: Logger
  readonly #ending = new Set<Promise<void>>()
  #session: Session
  #sessions = 0
  #lostAt: number | undefined
  #saidLost = false
  #back: NodeJS.Timeout | undefined
  #closed = false

  /** @throws {StartError} when the connection string makes no sense */
  constructor(connectionString: string, logger: Logger) {
    this.#connectionString = connectionString
    this.#logger = logger
    this.#session = this.#newSession()
  }

  get session(): Session {
    return this.#session
  }

  /** Since when nothing works; undefined while it does. */
  get lostAt(): number | undefined {
    return this.#lostAt
  }

  /** The server answered. */
  heard(session: Session): void {
    session.heardAt = performance.now()
    if (this.#lostAt === undefined || session !== this.#session) return
    this.#lostAt = undefined
    // A server that starts answers reads before it takes writes: it is back when nothing fails for a while.
    this.#back = setTimeout(() => {
      this.#back = undefined
      this.#saidLost = false
      this.#logger.info({}, 'The log is back')
    }, backAfterMs).unref()
  }

  /** A call failed. Where that may be the client's or the server's fault, a new client is made, and what runs on the old one ends. */
  failed(session: Session, error: unknown): void {
    if (session !== this.#session || this.#closed || !isTransient(error)) return
    this.#lostAt ??= performance.now()
    clearTimeout(this.#back)
    if (!this.#saidLost) this.#logger.warn({ err: error }, 'The log is lost; connecting again')
    this.#saidLost = true
    this.#session = this.#newSession()
    this.#end(session)
  }

  /** A call had no answer for so long. Others may have had: then it is slow, not lost. */
  silent(session: Session, forMs: number): void {
    if (performance.now() - session.heardAt >= forMs) this.failed(session, new Error(`The log has not answered for ${forMs} ms`))
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#back)
    this.#end(this.#session)
    await Promise.all(this.#ending)
  }

  #newSession(): Session {
    const [hosts = ''] = this.#connectionString.split('?')
    const discovers = hosts.startsWith('esdb+discover:') || hosts.includes(',')
    const prefersOther = /[?&]nodePreference=(?!leader)/i.test(this.#connectionString)
    const client = clientOf(withKeepAlive(this.#connectionString, this.#sessions++))
    prepareClient(client)
    return new Session(client, discovers && !prefersOther)
  }

  #end(session: Session): void {
    const ending = session.end().finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
  }
}

const keepAliveIntervalMs = 10_000
const keepAliveTimeoutMs = 5000

/**
 * gRPC keeps one socket for all channels with equal options, and makes them wait up to two minutes before it dials again.
 * A millisecond more or less is another socket, dialled at once; how long to wait is our own affair.
 */
function withKeepAlive(connectionString: string, nth: number): string {
  const given = (name: string): number | undefined => {
    const value = new RegExp(`[?&]${name}=(-?\\d+)`, 'i').exec(connectionString)?.[1]
    return value === undefined ? undefined : Number(value)
  }
  const interval = given('keepAliveInterval') ?? keepAliveIntervalMs
  if (interval < 0) return connectionString
  const parameters = `keepAliveInterval=${interval + (nth % 1000)}&keepAliveTimeout=${given('keepAliveTimeout') ?? keepAliveTimeoutMs}`
  return `${connectionString}${connectionString.includes('?') ? '&' : '?'}${parameters}`
}
