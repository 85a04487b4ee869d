import type { Position, RecordedEvent } from '../domain/event-store.js'
import { type AnyEvent, factOf, schemaVersions } from '../domain/events.js'
import { CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX, idOfStream } from '../domain/ids.js'
import type { Database } from './database.js'
import type { Fold, Projection } from './projection.js'

/** The streams that the read models are made of. */
export const PROJECTED_PREFIXES = [CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX] as const

/** A projection and the settings that its tables are built with. */
export interface Building {
  projection: Projection
  settings: string
}

/** An event that a projection cannot apply: a bug, which no repetition heals. */
export class CannotProject extends Error {}

/** Characters of JSON. */
const BATCH_UNITS_MAX = 16 << 20

/** Events of a stretch of the log, folded for every projection, on their way into one transaction. */
export class Batch {
  readonly #folds: readonly { name: string; fold: Fold }[]
  /** By stream: the folds look the same string up in every map, and find it without comparing its characters. */
  readonly #ids = new Map<string, string>()
  /** Everything up to here is in. */
  #position: Position
  #size = 0
  #units = 0

  constructor(buildings: readonly Building[], after: Position) {
    this.#folds = buildings.map(({ projection, settings }) => ({ name: projection.name, fold: projection.begin(settings) }))
    this.#position = after
  }

  get position(): Position {
    return this.#position
  }

  /** Events. */
  get size(): number {
    return this.#size
  }

  /** It holds as much as a transaction, and the memory, should. */
  isFull(eventsMax: number): boolean {
    return this.#size >= eventsMax || this.#units >= BATCH_UNITS_MAX
  }

  /** Takes an event in; one at or before what is in already changes nothing. */
  add(event: RecordedEvent): void {
    if (event.position <= this.#position) return
    try {
      this.#collect(event)
    } catch (error) {
      throw new CannotProject(
        `event ${event.id} (${event.type}, ${event.stream} ${event.revision}, position ${event.position}): ${String(error)}`,
        { cause: error },
      )
    }
    this.#position = event.position
    this.#size += 1
    this.#units += event.dataJson.length
  }

  /** There is nothing to project up to here. */
  moveTo(position: Position): void {
    if (position > this.#position) this.#position = position
  }

  async flush(db: Database): Promise<void> {
    for (const { name, fold } of this.#folds) {
      try {
        await fold.flush(db)
      } catch (error) {
        if (error instanceof Error) error.message = `projection ${name}: ${error.message}`
        throw error
      }
    }
  }

  #collect(event: RecordedEvent): void {
    if (!Object.hasOwn(schemaVersions, event.type)) throw new Error('its type is not known to this version of the program')
    const fact = factOf<AnyEvent>(event)
    let id = this.#ids.get(event.stream)
    if (id === undefined) this.#ids.set(event.stream, (id = idOfStream(event.stream)))
    for (const { fold } of this.#folds) fold.collect(fact, id)
  }
}
