/** What all versions that grew out of each other share; each knows how much of it is its own. */
interface Shared {
  /** In the order of their seqs. */
  readonly seqs: Map<string, number>
  lastSeq: number
}

/**
 * The seqs of messages by key, in a stretch of a conversation. A value that only grows: `add` gives a new version, and the old one
 * goes on knowing what it knew. The newest version adds in place, which costs a small object where a tree would copy its path;
 * to add to an older one, whose successor was dropped, copies what that one knew. Seqs rise, so a version is the seqs up to its last.
 */
export class MessageKeys implements Iterable<[key: string, seq: number]> {
  readonly #shared: Shared
  readonly #lastSeq: number

  private constructor(shared: Shared, lastSeq: number) {
    this.#shared = shared
    this.#lastSeq = lastSeq
  }

  /** By rising seq. */
  static of(entries: Iterable<readonly [key: string, seq: number]>): MessageKeys {
    const seqs = new Map(entries)
    let lastSeq = -1
    for (const seq of seqs.values()) lastSeq = seq
    return new MessageKeys({ seqs, lastSeq }, lastSeq)
  }

  get(key: string): number | undefined {
    const seq = this.#shared.seqs.get(key)
    return seq !== undefined && seq <= this.#lastSeq ? seq : undefined
  }

  /** Of a key that is there already the first seq stays. `seq` is higher than all before. */
  add(key: string, seq: number): MessageKeys {
    if (this.#lastSeq !== this.#shared.lastSeq) return MessageKeys.of(this).add(key, seq)
    if (this.#shared.seqs.has(key)) return this
    this.#shared.seqs.set(key, seq)
    this.#shared.lastSeq = seq
    return new MessageKeys(this.#shared, seq)
  }

  *[Symbol.iterator](): IterableIterator<[key: string, seq: number]> {
    for (const entry of this.#shared.seqs) {
      if (entry[1] > this.#lastSeq) return
      yield entry
    }
  }
}
