import type pg from 'pg'
import { Connection } from './connection.js'
import { isTransient, type Logger } from './errors.js'
import type { LogTail } from './log-tail.js'
import { pause } from '../retry.js'
import type { Position } from '../../domain/event-store.js'
import { numberOf } from './positions.js'
import { metadataAt, type SeenEnd } from './seen-end.js'
import { notifyChannel, presenceLock, schemaName } from './schema.js'

export interface HeadWatcherOptions {
  connectionString: string
  tail: LogTail
  seen: SeenEnd
  logger: Logger
  /** Ends when the batch of this process that is in flight is settled. */
  ownBatchSettled: () => Promise<void>
  /** Whether to listen for announcements. */
  notify: boolean
  /** How often to look while other processes use the log. */
  pollIntervalMs: number
  signal: AbortSignal
}

/** How often to look while nobody else does: only an append whose outcome was unknown is found this way. */
const aloneIntervalMs = 1000
/** How long our own batch in flight is waited for. */
const ownBatchPatienceMs = 50
/** A session that is silent for so long is given up. */
const pollDeadlineMs = 3_000

const poll = {
  name: 'poll_head',
  text: `SELECT position, (
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = ${presenceLock.classId} AND objid = ${presenceLock.objectId} AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  ), (${metadataAt}) FROM ${schemaName}.log_head`,
  rowMode: 'array' as const,
}

/** Finds out what other processes write: polling is what makes it true, NOTIFY what makes it soon. */
export class HeadWatcher {
  readonly #options: HeadWatcherOptions
  #connection!: Connection
  #others = true
  /** The next look must find this event. It was seen before the last look, so it cannot have been written after the log was set back. */
  #expected: Position
  #isSaidSilent = false
  #wake = new AbortController()
  #running: Promise<void> | undefined

  private constructor(options: HeadWatcherOptions) {
    this.#options = options
    this.#expected = options.seen.position
  }

  static async open(options: HeadWatcherOptions): Promise<HeadWatcher> {
    const watcher = new HeadWatcher(options)
    watcher.#connection = await Connection.open({
      connectionString: options.connectionString,
      applicationName: 'convolog log watcher',
      prepare: (client) => watcher.#prepare(client),
      onLost: () => watcher.#hurry(),
      onBack: () => watcher.#back(),
    })
    watcher.#running = watcher.#run()
    return watcher
  }

  /** Whether another process may be listening; true where that is not known. */
  get othersListen(): boolean {
    return this.#others || this.#connection.client === undefined
  }

  async close(): Promise<void> {
    this.#hurry()
    await this.#connection.close()
    await this.#running
  }

  async #prepare(client: pg.Client): Promise<void> {
    await this.#options.seen.confirm(client)
    client.on('notification', (message) => void this.#notified(message.payload))
    if (this.#options.notify) await client.query(`LISTEN ${notifyChannel}`)
    await client.query('SELECT pg_advisory_lock_shared($1, $2)', [presenceLock.classId, presenceLock.objectId])
    // The others count again, and from now on announce their commits to us.
    await client.query(`NOTIFY ${notifyChannel}, 'hello'`)
  }

  async #notified(payload: string | undefined): Promise<void> {
    if (payload === 'hello') return this.#hurry()
    // Our own announcements come back to us as well.
    await this.#ownBatchSettled()
    if (Number(payload) > this.#options.tail.position) await this.#options.tail.look()
  }

  async #run(): Promise<void> {
    const { signal, pollIntervalMs } = this.#options
    while (!signal.aborted) {
      this.#wake = new AbortController()
      await this.#poll()
      await pause(this.othersListen ? pollIntervalMs : aloneIntervalMs, this.#wake.signal)
    }
  }

  async #poll(): Promise<void> {
    const client = this.#connection.client
    if (client === undefined) return
    const { seen, tail, logger } = this.#options
    const deadline = setTimeout(() => this.#giveUp(client), pollDeadlineMs)
    const [expected, next] = [this.#expected, seen.position]
    try {
      const query = { ...poll, values: [numberOf(expected)] }
      const [row] = (await client.query<[position: string, listeners: string, metadata: string | null]>(query)).rows
      if (!seen.isThere(expected, row![2])) return
      this.#expected = next
      this.#others = Number(row![1]) > 1
      // Most often what is new is our own batch, which is about to be acknowledged: no need to read it back.
      if (Number(row![0]) > tail.position) await this.#ownBatchSettled()
      tail.noticed(Number(row![0]))
    } catch (err) {
      // That a connection is lost is said where appends are made.
      if (!isTransient(err)) logger.warn({ err }, 'The head of the log could not be read')
    } finally {
      clearTimeout(deadline)
    }
  }

  async #ownBatchSettled(): Promise<void> {
    const enough = new AbortController()
    await Promise.race([this.#options.ownBatchSettled(), pause(ownBatchPatienceMs, enough.signal)])
    enough.abort()
  }

  #giveUp(client: pg.Client): void {
    this.#isSaidSilent = true
    this.#options.logger.warn({ silentMs: pollDeadlineMs }, 'The session that watches the log does not answer: another is made')
    this.#connection.drop(client, new Error('The database does not answer'))
  }

  #back(): void {
    if (this.#isSaidSilent) this.#options.logger.info({}, 'The log is watched again')
    this.#isSaidSilent = false
    this.#hurry()
  }

  /** Look now. */
  #hurry(): void {
    this.#wake.abort()
  }
}
