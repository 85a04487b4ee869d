import { invalidField } from '../domain/errors.js'

/** One page of a list; `nextCursor` is null at the end. */
export interface Page<Item> {
  items: Item[]
  nextCursor: string | null
}

export interface PageOptions {
  cursor?: string | undefined
  limit: number
}

type Part = string | number | boolean
type Kind = 'string' | 'number' | 'boolean'
type PartOf<K extends Kind> = K extends 'string' ? string : K extends 'number' ? number : boolean

/** Where a page ended, opaque to the client. */
export const encodeCursor = (parts: readonly Part[]) => Buffer.from(JSON.stringify(parts)).toString('base64url')

/**
 * What `encodeCursor` made, checked, since it comes back from outside.
 * @throws {Refusal} invalid_request
 */
export function decodeCursor<const Kinds extends readonly Kind[]>(
  text: string | undefined,
  kinds: Kinds,
): { [I in keyof Kinds]: PartOf<Kinds[I]> } | undefined {
  if (text === undefined) return undefined
  const parts = parseParts(text)
  const fits =
    parts?.length === kinds.length && parts.every((part, i) => isOfKind(part, kinds[i]!)) && encodeCursor(parts as Part[]) === text
  if (!fits) throw invalidField('cursor', 'is not one that this list has given: leave it out to begin at the start')
  return parts as { [I in keyof Kinds]: PartOf<Kinds[I]> }
}

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

/** Rows were asked for with `limit + 1`: the one too many says that there is a next page. */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  limit: number,
  toItem: (row: Row) => Item,
  cursorOf: (row: Row) => readonly Part[],
): Page<Item> {
  const kept = rows.slice(0, limit)
  const last = kept.at(-1)
  return { items: kept.map(toItem), nextCursor: rows.length > limit && last !== undefined ? encodeCursor(cursorOf(last)) : null }
}

/** A time as answers write it. */
export const isoTime = (ms: number) => new Date(ms).toISOString()
export const isoTimeOrNull = (ms: number | null) => (ms === null ? null : isoTime(ms))
