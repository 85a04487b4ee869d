/** Positions carry a part of an event's hash, so that a log which was begun anew or restored does not take another's for its own. */

/** 48 bits of the hash: enough to tell apart logs that nobody forges, for a position gives no rights. */
const HASH_PART_LENGTH = 8
const hashForm = new RegExp(`^[\\w-]{${HASH_PART_LENGTH}}`)
/** SHA-256 in base64url, as hash-chain.ts makes it. */
const HASH_LENGTH = 43
/** How the JSON text of metadata ends, as JSON.stringify writes it. */
const beforeHash = ',"hash":"'
const afterHash = '"}'

/** What may follow a place in a position, as the source of a regular expression. */
export const hashPartPattern = `(?:\\.[\\w-]{${HASH_PART_LENGTH}})?`

/** The position at `place`, whose last event has this hash. An event of a foreign writer may have none; its place then stands alone. */
export function positionOf(place: string, hash: unknown): string {
  if (typeof hash !== 'string' || !hashForm.test(hash)) return place
  // The short text first: so the engine copies once instead of twice.
  return place + ('.' + hash.slice(0, HASH_PART_LENGTH))
}

/**
 * The hash in the JSON text of an event's metadata, or its beginning, which is all that a position needs. Where the text ends as our
 * writer ends it, that is cut out, for a reader that drops events should not pay for parsing them. The cut is right for any writer of
 * JSON: a key before the last brace of the text belongs to the outermost object, and of keys named twice the last one counts. All
 * other texts are parsed.
 */
export function hashInMetadata(json: string): unknown {
  const end = json.length - afterHash.length
  const start = end - HASH_LENGTH
  if (json.startsWith(beforeHash, start - beforeHash.length) && json.indexOf('"', start) === end && json.endsWith(afterHash)) {
    const beginning = json.slice(start, start + HASH_PART_LENGTH)
    if (hashForm.test(beginning)) return beginning
  }
  return (JSON.parse(json) as { hash?: unknown }).hash
}
