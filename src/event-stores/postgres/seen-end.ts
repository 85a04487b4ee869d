import type pg from 'pg'
import type { Position } from '../../domain/event-store.js'
import type { LogTail } from './log-tail.js'
import { numberOf, zeroPosition } from './positions.js'
import { toPosition } from './reads.js'
import { schemaName } from './schema.js'

/** Selects the metadata of the event at the place in `$1`; no value where the log has none there. */
export const metadataAt = `SELECT metadata FROM ${schemaName}.events WHERE position = $1`

/**
 * The last event that this process has seen in the log. What was committed stays: a log that lacks it was set back, by a failover to a
 * standby that was behind, or by a restore. From then on memory and log do not belong together.
 */
export class SeenEnd {
  readonly #tail: LogTail
  readonly #setBack: (error: Error) => void
  #position: Position

  /** `start`: the end of the log when this process began; `setBack` is called when the log does not have any more what was seen. */
  constructor(start: Position, tail: LogTail, setBack: (error: Error) => void) {
    this.#position = start
    this.#tail = tail
    this.#setBack = setBack
  }

  /** The latest that is known with its hash. */
  get position(): Position {
    const last = this.#tail.at(this.#tail.position)?.position
    if (last !== undefined && last > this.#position) this.#position = last
    return this.#position
  }

  /** False, which is also told to whoever keeps the store: the event at `position`, which was seen, is not what the log has there now. */
  isThere(position: Position, metadataJson: string | null): boolean {
    if (position === zeroPosition || toPosition([String(numberOf(position)), metadataJson]) === position) return true
    this.#setBack(
      new Error(`The log was set back or replaced: it does not have the event at ${position} any more, which this node has seen`),
    )
    return false
  }

  /**
   * For a new session, which may lead to another server than the last one. A standby says nothing: what it lacks it may still receive,
   * and it takes no appends. Once it is promoted, it lacks for good what it lacks then.
   * @throws where the log was set back, or the server is a standby
   */
  async confirm(client: pg.Client): Promise<void> {
    const { position } = this
    const query = { text: `SELECT pg_is_in_recovery(), (${metadataAt})`, values: [numberOf(position)], rowMode: 'array' as const }
    const [row] = (await client.query<[isStandby: boolean, metadata: string | null]>(query)).rows
    if (row![0]) throw new Error('The server of the log is a standby')
    if (!this.isThere(position, row![1])) throw new Error('The log was set back or replaced')
  }
}
