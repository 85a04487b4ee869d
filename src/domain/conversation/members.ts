import { List } from 'immutable'
import type { Role } from '../events.js'
import { type HashKey, keyedHash, newHashKey } from '../keyed-hash.js'

export interface Member {
  role: Role
  /** Order of joining, over the whole conversation: who has stood longest takes over. */
  rank: number
  joinedSeq: number
  joinedAt: number
  /** The conversation's last ordinal when it joined: unread starts there. */
  joinedOrdinal: number
}

/** For snapshots: the buckets' texts. */
export interface MembersJson {
  size: number
  /** By which the buckets were filled: nodes that share a snapshot find members in the same ones. */
  key: HashKey
  buckets: string[]
}

/** On average; with more there are more buckets. */
const BUCKET_MEMBERS_MAX = 32
const BUCKETS_GROWTH = 4

/** One for all tables that this process makes: what it folds twice is equal. */
const keyOfProcess = newHashKey()

/**
 * The members of a conversation. A value: `set` and `delete` give a new one, which shares with the old what has not changed.
 * They lie in buckets, and in a snapshot a bucket is a text that is not read before somebody asks for one of its members: so a
 * group of 100,000 opens without being read through, and is saved by writing anew only the buckets that somebody has asked for.
 */
export class Members implements Iterable<[userId: string, member: Member]> {
  readonly size: number
  readonly #key: HashKey
  readonly #buckets: List<Bucket>

  private constructor(size: number, key: HashKey, buckets: List<Bucket>) {
    this.size = size
    this.#key = key
    this.#buckets = buckets
  }

  static of(entries: Iterable<readonly [userId: string, member: Member]>): Members {
    const all = new Map(entries)
    let count = 1
    while (all.size > count * BUCKET_MEMBERS_MAX) count *= BUCKETS_GROWTH
    const buckets = Array.from({ length: count }, () => new Map<string, Member>())
    for (const [userId, member] of all) buckets[placeIn(count, keyOfProcess, userId)]!.set(userId, member)
    return new Members(all.size, keyOfProcess, List(buckets.map((members) => new Bucket(members))))
  }

  static fromJson({ size, key, buckets }: MembersJson): Members {
    return new Members(size, key, List(buckets.map((text) => new Bucket(text))))
  }

  toJson(): MembersJson {
    return { size: this.size, key: this.#key, buckets: this.#buckets.toArray().map((bucket) => bucket.toText()) }
  }

  get(userId: string): Member | undefined {
    return this.#bucketOf(userId).members.get(userId)
  }

  has(userId: string): boolean {
    return this.#bucketOf(userId).members.has(userId)
  }

  /** Another member than this one: of a direct conversation, the other. */
  findOther(userId: string): string | undefined {
    for (const [memberId] of this) if (memberId !== userId) return memberId
    return undefined
  }

  set(userId: string, member: Member): Members {
    const bucket = this.#bucketOf(userId).members
    const size = bucket.has(userId) ? this.size : this.size + 1
    const members = new Members(size, this.#key, this.#buckets.set(this.#placeOf(userId), new Bucket(new Map(bucket).set(userId, member))))
    return size > members.#buckets.size * BUCKET_MEMBERS_MAX ? Members.of(members) : members
  }

  delete(userId: string): Members {
    const left = new Map(this.#bucketOf(userId).members)
    if (!left.delete(userId)) return this
    return new Members(this.size - 1, this.#key, this.#buckets.set(this.#placeOf(userId), new Bucket(left)))
  }

  *[Symbol.iterator](): Iterator<[userId: string, member: Member]> {
    for (const bucket of this.#buckets) yield* bucket.members
  }

  #bucketOf(userId: string): Bucket {
    return this.#buckets.get(this.#placeOf(userId))!
  }

  #placeOf(userId: string): number {
    return placeIn(this.#buckets.size, this.#key, userId)
  }
}

/** A text until somebody asks for a member, and again once it has been saved. */
class Bucket {
  #content: string | ReadonlyMap<string, Member>

  constructor(content: string | ReadonlyMap<string, Member>) {
    this.#content = content
  }

  get members(): ReadonlyMap<string, Member> {
    if (typeof this.#content === 'string') this.#content = new Map(this.#content === '' ? [] : this.#content.split('\n').map(entryOf))
    return this.#content
  }

  toText(): string {
    if (typeof this.#content !== 'string') this.#content = [...this.#content].map(lineOf).join('\n')
    return this.#content
  }
}

/** No user id has a space in it. */
const lineOf = ([userId, { role, rank, joinedSeq, joinedAt, joinedOrdinal }]: [string, Member]) =>
  `${userId} ${role} ${rank} ${joinedSeq} ${joinedAt} ${joinedOrdinal}`

function entryOf(line: string): [string, Member] {
  const [userId = '', role, ...numbers] = line.split(' ')
  const [rank = 0, joinedSeq = 0, joinedAt = 0, joinedOrdinal = 0] = numbers.map(Number)
  return [userId, { role: role as Role, rank, joinedSeq, joinedAt, joinedOrdinal }]
}

/** Most conversations have one bucket, and need no hash. Clients choose their ids, but not where they lie: the key is secret. */
const placeIn = (buckets: number, key: HashKey, userId: string): number => (buckets === 1 ? 0 : keyedHash(key, userId) % buckets)
