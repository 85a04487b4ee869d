import { setImmediate as nextTurn } from 'node:timers/promises'
import type pg from 'pg'
import {
  type Append,
  AppendOutcomeUnknown,
  type AppendResult,
  NO_STREAM,
  RecordedEvent,
  StoreUnavailable,
} from '../../domain/event-store.js'
import { requireWellFormed } from '../well-formed.js'
import { AppendQueue, type PendingAppend } from './append-queue.js'
import { BatchEncoder } from './batch-encoder.js'
import type { Connection } from './connection.js'
import { isConnectionLoss, isTransient } from './errors.js'
import type { LogTail } from './log-tail.js'
import { toPlace } from './positions.js'
import { schemaName } from './schema.js'

export interface AppenderOptions {
  connection: Connection
  tail: LogTail
  /** Whether a process beside this one listens. */
  announces: () => boolean
  /** How long one batch may take before its session is given up. */
  deadlineMs: number
  /** How long a batch whose session broke is tried again before its outcome is called unknown. */
  settleMs: number
  queuedBytesMax: number
}

/** A row of `append_batch`: stream, actual revision, first position, positions of the originals. */
type Verdict = [stream: string | null, actualRevision: number | null, firstPosition: string | null, duplicatePositions: string[] | null]

const appendBatch = {
  name: 'append_batch',
  text: `SELECT * FROM ${schemaName}.append_batch($1, $2, $3, $4, $5, $6, $7, $8)`,
  rowMode: 'array' as const,
}

/**
 * Group commit: one batch is in flight, what arrives meanwhile is the next. One batch is one statement,
 * one round trip and one fsync, however many streams it touches.
 */
export class Appender {
  readonly #options: AppenderOptions
  readonly #queue: AppendQueue
  readonly #encoder = new BatchEncoder()
  #running: Promise<void> | undefined
  #inFlight: Promise<void> | undefined
  #closed = false

  constructor(options: AppenderOptions) {
    this.#options = options
    this.#queue = new AppendQueue(options.queuedBytesMax)
  }

  async append(append: Append): Promise<AppendResult> {
    requireWellFormed(append)
    if (this.#closed) throw new StoreUnavailable('The store is closed')
    const pending = this.#queue.add(append)
    this.#running ??= this.#run()
    return pending.settled
  }

  /** Ends with the batch that is in flight now, whatever becomes of it. */
  async settled(): Promise<void> {
    await this.#inFlight
  }

  /** Takes no more, and ends when all that was taken is settled. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#running
  }

  async #run(): Promise<void> {
    do {
      // A turn's wait lets all that this turn brings, and all that the last results set off, go in one batch.
      await nextTurn()
      this.#inFlight = this.#commit(this.#queue.takeBatch())
      await this.#inFlight
    } while (!this.#queue.isEmpty)
    this.#inFlight = this.#running = undefined
  }

  async #commit(batch: PendingAppend[]): Promise<void> {
    try {
      this.#settle(batch, await this.#deliver(batch))
    } catch (error) {
      if (batch.length > 1 && isRefusal(error)) return this.#commitOneByOne(batch)
      for (const pending of batch) this.#fail(pending, error)
    }
  }

  /** The server refused the batch as a whole; one bad append (a NUL in a text) must not fail the others. */
  async #commitOneByOne(batch: PendingAppend[]): Promise<void> {
    let trouble: unknown
    for (const pending of batch) {
      try {
        if (trouble !== undefined) throw trouble as Error
        this.#settle([pending], await this.#deliver([pending]))
      } catch (error) {
        // Trouble of the server (a full disk) is not this append's: the others need not find it out one by one.
        if (!isRefusal(error) || isTransient(error)) trouble = error
        this.#fail(pending, error)
      }
    }
  }

  /** Sends the batch, and the same batch again where a session broke: what had been committed comes back as a duplicate. */
  async #deliver(batch: PendingAppend[]): Promise<Verdict[]> {
    const { connection, settleMs } = this.#options
    const encoded = this.#encoder.encode(batch.map((pending) => pending.append))
    let lost: unknown
    let lostAt = 0
    for (;;) {
      const client = lost === undefined || performance.now() - lostAt < settleMs ? await connection.ready(settleMs, lostAt) : undefined
      if (client === undefined && lost === undefined) throw new StoreUnavailable('The log is not connected')
      if (client === undefined)
        throw new AppendOutcomeUnknown('The connection to the log was lost while the append was in flight', { cause: lost })
      try {
        return await this.#send(client, encoded)
      } catch (error) {
        if (!isConnectionLoss(error))
          throw lost === undefined ? error : new AppendOutcomeUnknown('The second try was refused', { cause: error })
        lostAt ||= performance.now()
        lost = error
        connection.drop(client, error as Error)
      }
    }
  }

  async #send(client: pg.Client, encoded: Buffer[]): Promise<Verdict[]> {
    const { connection, deadlineMs, announces } = this.#options
    const deadline = setTimeout(() => connection.drop(client, new Error('The append took too long')), deadlineMs)
    try {
      const { rows } = await client.query<Verdict>({ ...appendBatch, values: [...encoded, announces()] })
      return rows
    } finally {
      clearTimeout(deadline)
    }
  }

  #settle(batch: PendingAppend[], verdicts: Verdict[]): void {
    const committed: RecordedEvent[] = []
    let first = Infinity
    const [whole] = verdicts
    if (whole !== undefined && whole[0] === null) {
      first = Number(whole[2])
      for (const pending of batch) this.#appended(pending, first + committed.length, committed)
    } else {
      batch.forEach((pending, i) => {
        const [, actualRevision, firstPosition, originals] = verdicts[i]!
        if (firstPosition !== null) {
          first = Math.min(first, Number(firstPosition))
          this.#appended(pending, Number(firstPosition), committed)
        } else this.#notAppended(pending, actualRevision ?? NO_STREAM, originals)
      })
    }
    if (committed.length > 0) this.#options.tail.committed(first, committed)
  }

  #appended(pending: PendingAppend, firstPosition: number, committed: RecordedEvent[]): void {
    const events = pending.append.events.map((event, i) => RecordedEvent.committed(event, toPlace(firstPosition + i)))
    for (const event of events) committed.push(event)
    this.#queue.done(pending)
    pending.resolve({ outcome: 'appended', events })
  }

  #notAppended(pending: PendingAppend, actualRevision: number, originals: string[] | null): void {
    this.#queue.done(pending)
    if (originals === null) return pending.resolve({ outcome: 'conflict', actualRevision })
    // It may be this very batch, sent before the session broke: nobody else will tell the readers of it.
    this.#options.tail.noticed(Number(originals.at(-1)))
    pending.resolve({
      outcome: 'duplicate',
      events: pending.append.events.map((event, i) => RecordedEvent.committed(event, toPlace(originals[i]!))),
    })
  }

  #fail(pending: PendingAppend, error: unknown): void {
    this.#queue.done(pending)
    pending.reject(isRefusal(error) && isTransient(error) ? new StoreUnavailable('The log cannot write now', { cause: error }) : error)
  }
}

/** Whether the server has said no, so that nothing was written. */
function isRefusal(error: unknown): boolean {
  return !(error instanceof StoreUnavailable) && !(error instanceof AppendOutcomeUnknown) && !isConnectionLoss(error)
}
