import type { Position } from '../../domain/event-store.js'

/** 16 digits: as many as a JavaScript number counts exactly, and the same width for all, so that `<` on the text is the order of the log. */
const positionDigits = 16
const positionForm = /^\d{16}$/

export const zeroPosition: Position = '0'.repeat(positionDigits)

export function isPosition(text: string): boolean {
  return positionForm.test(text)
}

/** The token of the n-th event of the log (the first is 1). */
export function toPosition(n: number | string): Position {
  return String(n).padStart(positionDigits, '0')
}

export function fromPosition(position: Position | undefined): number {
  if (position === undefined) return 0
  if (!isPosition(position)) throw new TypeError(`Not a position of this log: ${position}`)
  return Number(position)
}
