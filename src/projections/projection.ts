import type { AnyEvent, RecordedFact } from '../domain/events.js'
import type { Database } from './database.js'

/**
 * A read model's writing half. Self-contained: a fold looks at no table but its projection's own,
 * so that each can be rebuilt alone.
 */
export interface Projection {
  readonly name: string
  /** A change of shape or meaning takes a new one: on start the projection is then rebuilt. */
  readonly version: number
  /** What else its rows depend on; another value is rebuilt too. */
  readonly settings: string
  /** Its tables, in an order in which they can be dropped. */
  readonly tables: readonly string[]
  /** Creates them in the schema of the connection. */
  readonly ddl: string
  /** What only queries need: a rebuild makes it when the rows are there, which costs a fraction. */
  readonly indexes: string
  /** A fold of one batch, with rows as `settings` want them. */
  begin(settings: string): Fold
}

/** One batch: folded in memory first, so that a row is written once however many events touched it. */
export interface Fold {
  /** `id`: that of the stream's conversation or user. */
  collect(event: RecordedFact<AnyEvent>, id: string): void
  flush(db: Database): Promise<void>
}

/** A map by two keys, without making a string of them. */
export class PairMap<Value> {
  readonly #byFirst = new Map<string, Map<string, Value>>()

  get(first: string, second: string): Value | undefined {
    return this.#byFirst.get(first)?.get(second)
  }

  set(first: string, second: string, value: Value): void {
    const inner = this.#byFirst.get(first)
    if (inner) inner.set(second, value)
    else this.#byFirst.set(first, new Map([[second, value]]))
  }

  /** The value, made where there is none. */
  ensure(first: string, second: string, make: () => Value): Value {
    let inner = this.#byFirst.get(first)
    if (!inner) this.#byFirst.set(first, (inner = new Map()))
    let value = inner.get(second)
    if (value === undefined) inner.set(second, (value = make()))
    return value
  }

  /** Grouped by the first key, which is how the tables are laid out. */
  entries(): { first: string; second: string; value: Value }[] {
    const entries: { first: string; second: string; value: Value }[] = []
    for (const [first, inner] of this.#byFirst) for (const [second, value] of inner) entries.push({ first, second, value })
    return entries
  }
}
