import { Map as PersistentMap } from 'immutable'
import { keyedHash, newHashKey } from './keyed-hash.js'

/** One for all maps of this process. */
const keyOfProcess = newHashKey()
const HASH_CHARACTERS = 7

/**
 * The id behind its keyed hash. `immutable` places a text by a public hash, by which anybody finds thousands of ids that collide; they
 * would share one bucket, which each change copies. Texts that begin with a hash that nobody knows do not collide by choice.
 */
export const hashedId = (id: string): string => keyedHash(keyOfProcess, id).toString(36).padStart(HASH_CHARACTERS, '0') + id

/** A persistent map by ids that clients choose. A value: `set` and `delete` give a new one, which shares what has not changed. */
export class IdMap<Value> implements Iterable<[id: string, value: Value]> {
  readonly #entries: PersistentMap<string, Value>

  private constructor(entries: PersistentMap<string, Value>) {
    this.#entries = entries
  }

  static of<Value>(entries: Iterable<readonly [id: string, value: Value]> = []): IdMap<Value> {
    const empty = PersistentMap<string, Value>()
    return new IdMap(
      empty.withMutations((map) => {
        for (const [id, value] of entries) map.set(hashedId(id), value)
      }),
    )
  }

  get size(): number {
    return this.#entries.size
  }

  get(id: string): Value | undefined {
    return this.#entries.get(hashedId(id))
  }

  has(id: string): boolean {
    return this.#entries.has(hashedId(id))
  }

  set(id: string, value: Value): IdMap<Value> {
    return new IdMap(this.#entries.set(hashedId(id), value))
  }

  delete(id: string): IdMap<Value> {
    return new IdMap(this.#entries.delete(hashedId(id)))
  }

  *[Symbol.iterator](): Iterator<[id: string, value: Value]> {
    for (const [hashed, value] of this.#entries) yield [hashed.slice(HASH_CHARACTERS), value]
  }
}

/** A persistent set of ids that clients choose. */
export class IdSet implements Iterable<string> {
  readonly #ids: IdMap<true>

  private constructor(ids: IdMap<true>) {
    this.#ids = ids
  }

  static of(ids: Iterable<string> = []): IdSet {
    return new IdSet(IdMap.of(Array.from(ids, (id) => [id, true] as const)))
  }

  get size(): number {
    return this.#ids.size
  }

  has(id: string): boolean {
    return this.#ids.has(id)
  }

  add(id: string): IdSet {
    return new IdSet(this.#ids.set(id, true))
  }

  delete(id: string): IdSet {
    return new IdSet(this.#ids.delete(id))
  }

  *[Symbol.iterator](): Iterator<string> {
    for (const [id] of this.#ids) yield id
  }
}
