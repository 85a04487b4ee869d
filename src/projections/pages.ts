import { sql } from 'kysely'
import { invalidField } from '../domain/errors.js'
import type { EventStore, Position } from '../domain/event-store.js'

/** One page of a list; `nextCursor` is null at the end. */
export interface Page<Item> {
  items: Item[]
  nextCursor: string | null
}

export interface PageOptions {
  cursor?: string | undefined
  limit: number
  /** The page ends before the item with which its items would come to more as JSON, but has at least one. Default: no such bound. */
  bytesMax?: number | undefined
}

type Part = string | number | boolean
type Kind = 'string' | 'number' | 'boolean'
type PartOf<K extends Kind> = K extends 'string' ? string : K extends 'number' ? number : boolean

type Parts<Kinds extends readonly Kind[]> = { [I in keyof Kinds]: PartOf<Kinds[I]> }

/** A row that a page ends with. `applied`: how far the tables were, of which the row was read. */
interface PagedRow {
  applied: Position
}

/** Adds `applied` to the rows of a page. */
export const appliedOf = (projection: string) => sql<Position>`(SELECT position FROM checkpoints WHERE projection = ${sql.lit(projection)})`

/** The list, whose it is, and the position as of which the page was read come before the parts that say where it ended. */
const HEADING_KINDS = ['string', 'string', 'string'] as const

/**
 * A list that is given in pages. A cursor is opaque to the client and carries the name of its list, the user or conversation that the
 * list is of, and a position, by which the log tells whether the page was its own.
 */
export class PagedList<const Kinds extends readonly Kind[]> {
  readonly #name: string
  readonly #kinds: Kinds

  /** `kinds`: of the parts that say where a page ended. */
  constructor(name: string, kinds: Kinds) {
    this.#name = name
    this.#kinds = kinds
  }

  /** Where the page before ended; undefined: the beginning. @throws {Refusal} invalid_request where the cursor is not of this list */
  after(owner: string, cursor: string | undefined): Parts<Kinds> | undefined {
    if (cursor === undefined) return undefined
    const [name, of, , ...parts] = parseCursor(cursor, this.#kinds)
    if (name !== this.#name || of !== owner) throw foreignCursor()
    return parts as Parts<Kinds>
  }

  /** Rows were asked for with `limit + 1`: one that the page does not take says that there is a next page. */
  page<Row extends PagedRow, Item>(
    owner: string,
    rows: readonly Row[],
    { limit, bytesMax = Infinity }: PageOptions,
    toItem: (row: Row) => Item,
    partsOf: (row: Row) => Parts<Kinds>,
  ): Page<Item> {
    const items = cutByBytes(rows.slice(0, limit).map(toItem), bytesMax)
    const last = rows[items.length - 1]
    const isEnd = rows.length === items.length || last === undefined
    return { items, nextCursor: isEnd ? null : encodeCursor([this.#name, owner, last.applied, ...partsOf(last)]) }
  }
}

/** The first items that together come to no more than `bytesMax` as JSON, or the first alone. */
function cutByBytes<Item>(items: Item[], bytesMax: number): Item[] {
  let bytes = 0
  const tooMany = items.findIndex((item, i) => (bytes += Buffer.byteLength(JSON.stringify(item)) + 1) > bytesMax && i > 0)
  return tooMany < 0 ? items : items.slice(0, tooMany)
}

/**
 * Before the tables are asked: a cursor of another log would pass over rows that its reader has never seen.
 * @throws {Refusal} invalid_request
 */
export async function requireCursorOfThisLog(cursor: string | undefined, store: Pick<EventStore, 'confirms'>): Promise<void> {
  if (cursor !== undefined && !(await store.confirms(parseCursor(cursor)[2]))) throw foreignCursor()
}

const encodeCursor = (parts: readonly Part[]) => Buffer.from(JSON.stringify(parts)).toString('base64url')

/** What `encodeCursor` made, checked, since it comes back from outside; `kinds` of what follows the heading, where they are known. */
function parseCursor(text: string, kinds?: readonly Kind[]): [name: string, owner: string, position: Position, ...parts: Part[]] {
  const parts = parseParts(text)
  const expected = [...HEADING_KINDS, ...(kinds ?? [])]
  const isWhole = kinds === undefined ? (parts?.length ?? 0) >= expected.length : parts?.length === expected.length
  const fits = isWhole && expected.every((kind, i) => isOfKind(parts![i], kind)) && encodeCursor(parts as Part[]) === text
  if (!fits) throw foreignCursor()
  return parts as [string, string, string, ...Part[]]
}

const foreignCursor = () => invalidField('cursor', 'is not one that this list has given: leave it out to begin at the start')

function parseParts(text: string): unknown[] | undefined {
  try {
    const parts: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    return Array.isArray(parts) ? parts : undefined
  } catch {
    return undefined
  }
}

const INTEGER_MAX = 2 ** 31 - 1
function isOfKind(part: unknown, kind: Kind): boolean {
  if (kind === 'number') return Number.isInteger(part) && (part as number) >= 0 && (part as number) <= INTEGER_MAX
  return typeof part === kind && !(typeof part === 'string' && (part.includes('\0') || !part.isWellFormed()))
}

/** A time as answers write it. */
export const isoTime = (ms: number) => new Date(ms).toISOString()
export const isoTimeOrNull = (ms: number | null) => (ms === null ? null : isoTime(ms))
