import type { Position as LogPosition } from '@eventstore/db-client'
import type { Position } from '../../domain/event-store.js'
import { hashPartPattern } from '../../domain/position.js'

/** 16 digits: ten petabytes of log, and the same width for all, so that `<` on the text is the order of the log. */
const digits = 16
const placePattern = `\\d{${digits}}-\\d{${digits}}`
const placeForm = new RegExp(`^${placePattern}$`)
const positionForm = new RegExp(`^${placePattern}${hashPartPattern}$`)

/** Before the first event: of every log. */
export const zeroPosition: Position = `${'0'.repeat(digits)}-${'0'.repeat(digits)}`

export function isPosition(text: string): boolean {
  return positionForm.test(text)
}

/**
 * Commit and prepare: the server wants both back. (They are the same for all that it writes today.)
 * Undefined for its -1: so it reports a checkpoint of an empty log.
 */
export function findPlace(commit: bigint | string, prepare: bigint | string): string | undefined {
  const place = toPlace(commit, prepare)
  return placeForm.test(place) ? place : undefined
}

export function toPlace(commit: bigint | string, prepare: bigint | string): string {
  return `${String(commit).padStart(digits, '0')}-${String(prepare).padStart(digits, '0')}`
}

/** What a subscription starts after. @throws {TypeError} */
export function fromPosition(position: Position): LogPosition | 'start' {
  if (!isPosition(position)) throw new TypeError(`Not a position of this log: ${position}`)
  if (position === zeroPosition) return 'start'
  return { commit: BigInt(position.slice(0, digits)), prepare: BigInt(position.slice(digits + 1, 2 * digits + 1)) }
}

export function later(a: string, b: string): string {
  return a > b ? a : b
}
