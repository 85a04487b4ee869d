import type { Position as LogPosition } from '@eventstore/db-client'
import type { Position } from '../../domain/event-store.js'

/** 16 digits: ten petabytes of log, and the same width for all, so that `<` on the text is the order of the log. */
const digits = 16
const form = /^\d{16}-\d{16}$/

export const zeroPosition: Position = `${'0'.repeat(digits)}-${'0'.repeat(digits)}`

export function isPosition(text: string): boolean {
  return form.test(text)
}

/**
 * Commit and prepare: the server wants both back. (They are the same for all that it writes today.)
 * Undefined for its -1: so it reports a checkpoint of an empty log.
 */
export function findPosition(commit: bigint | string, prepare: bigint | string): Position | undefined {
  const position = toPosition(commit, prepare)
  return isPosition(position) ? position : undefined
}

export function toPosition(commit: bigint | string, prepare: bigint | string): Position {
  return `${String(commit).padStart(digits, '0')}-${String(prepare).padStart(digits, '0')}`
}

/** What a subscription starts after. */
export function fromPosition(position: Position): LogPosition | 'start' {
  if (!isPosition(position)) throw new TypeError(`Not a position of this log: ${position}`)
  if (position === zeroPosition) return 'start'
  return { commit: BigInt(position.slice(0, digits)), prepare: BigInt(position.slice(digits + 1)) }
}

export function later(a: Position, b: Position): Position {
  return a > b ? a : b
}
