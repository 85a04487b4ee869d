import { Socket } from 'node:net'
import pg from 'pg'
import { backoffMs, pause } from '../retry.js'

export interface ConnectionOptions {
  connectionString: string
  applicationName: string
  /** Run on each new session before anybody gets it. */
  prepare: (client: pg.Client) => Promise<void>
  onLost?: (error: unknown) => void
  onBack?: () => void
}

const connectTimeoutMs = 5000
const keepAliveIdleMs = 10_000

/** One session for one purpose, replaced for ever when it is lost. */
export class Connection {
  readonly #options: ConnectionOptions
  readonly #closing = new AbortController()
  readonly #sockets = new WeakMap<pg.Client, Socket>()
  readonly #waiting = new Set<() => void>()
  #client: pg.Client | undefined
  #lostAt = 0

  private constructor(options: ConnectionOptions) {
    this.#options = options
  }

  /** The first session is made here; that there is none is the caller's to hear. */
  static async open(options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(options)
    await connection.#connect()
    return connection
  }

  get client(): pg.Client | undefined {
    return this.#client
  }

  /** The session, now or within `patienceMs` of its loss (or of `from`, where that is later). */
  async ready(patienceMs: number, from = 0): Promise<pg.Client | undefined> {
    if (this.#client !== undefined) return this.#client
    const leftMs = Math.max(this.#lostAt, from) + patienceMs - performance.now()
    if (leftMs > 0 && !this.#closing.signal.aborted) await this.#back(leftMs)
    return this.#client
  }

  /** Gives a session up that does not answer; what runs on it fails now. */
  drop(client: pg.Client, reason: Error): void {
    this.#lost(client, reason)
    this.#sockets.get(client)?.destroy(reason)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    for (const wake of this.#waiting) wake()
    const client = this.#client
    this.#client = undefined
    if (client === undefined) return
    const impatience = setTimeout(() => this.#sockets.get(client)?.destroy(), 1000)
    await client.end().catch(() => {})
    clearTimeout(impatience)
  }

  #back(withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, withinMs)
      this.#waiting.add(wake)
    })
  }

  async #connect(): Promise<void> {
    const socket = new Socket()
    const { connectionString, applicationName, prepare } = this.#options
    const client = new pg.Client({
      connectionString,
      application_name: applicationName,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveIdleMs,
      stream: () => socket,
    })
    this.#sockets.set(client, socket)
    client.on('error', (error) => this.#lost(client, error))
    client.on('end', () => this.#lost(client, new Error('The connection ended')))
    // One clock for everything until the session can be used: a server that accepts and then says nothing must not hold us.
    const deadline = setTimeout(() => socket.destroy(new Error('The database does not answer')), connectTimeoutMs)
    const giveUp = (): unknown => socket.destroy()
    this.#closing.signal.addEventListener('abort', giveUp)
    try {
      await client.connect()
      await prepare(client)
    } catch (error) {
      socket.destroy()
      throw error
    } finally {
      clearTimeout(deadline)
      this.#closing.signal.removeEventListener('abort', giveUp)
    }
    await this.#welcome(client)
  }

  async #welcome(client: pg.Client): Promise<void> {
    if (this.#closing.signal.aborted) return client.end().catch(() => {})
    if (this.#sockets.get(client)?.destroyed) throw new Error('The connection ended')
    this.#client = client
    for (const wake of this.#waiting) wake()
  }

  #lost(client: pg.Client, error: unknown): void {
    if (client !== this.#client || this.#closing.signal.aborted) return
    this.#client = undefined
    this.#lostAt = performance.now()
    this.#options.onLost?.(error)
    void this.#reconnect()
  }

  async #reconnect(): Promise<void> {
    for (let attempt = 0; !this.#closing.signal.aborted; attempt++) {
      await pause(backoffMs(attempt), this.#closing.signal)
      if (this.#closing.signal.aborted) return
      const error = await this.#connect().catch((error: unknown) => error ?? new Error('no connection'))
      if (error === undefined) return this.#options.onBack?.()
    }
  }
}
