import type { Position } from '../../domain/event-store.js'
import { hashPartPattern } from '../../domain/position.js'

/** 16 digits: as many as a JavaScript number counts exactly, and the same width for all, so that `<` on the text is the order of the log. */
const placeDigits = 16
const positionForm = new RegExp(`^\\d{${placeDigits}}${hashPartPattern}$`)

/** Before the first event: of every log. */
export const zeroPosition: Position = '0'.repeat(placeDigits)

export function isPosition(text: string): boolean {
  return positionForm.test(text)
}

/** The place of the n-th event of the log (the first is 1). */
export function toPlace(n: number | string): string {
  return String(n).padStart(placeDigits, '0')
}

/** Which event of the log it is: the n in `toPlace`. @throws {TypeError} */
export function numberOf(position: Position | undefined): number {
  if (position === undefined) return 0
  if (!isPosition(position)) throw new TypeError(`Not a position of this log: ${position}`)
  return Number(position.slice(0, placeDigits))
}
