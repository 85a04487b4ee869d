/** Who has received and read up to where: one stream a conversation, of its own numbering. */
import { Map as PersistentMap } from 'immutable'
import { type Decision, decided, unchanged } from '../decision.js'
import { unreachable } from '../errors.js'
import type { Fact, ReceiptEvent } from '../events.js'

export interface Cursor {
  readSeq: number | null
  deliveredSeq: number | null
}

export interface ReceiptsState {
  cursors: PersistentMap<string, Cursor>
}

export type ReceiptsCommand =
  /** `ordinal`: that of the last message at or below `seq`. `sentSeq`: the reader's own last message, which it has read by sending it. */
  | { type: 'MarkRead'; userId: string; seq: number; ordinal: number; sentSeq: number | null }
  | { type: 'MarkDelivered'; userId: string; seq: number }

export const noReceipts: ReceiptsState = { cursors: PersistentMap() }
const noCursor: Cursor = { readSeq: null, deliveredSeq: null }

export const cursorOf = (state: ReceiptsState, userId: string): Cursor => state.cursors.get(userId) ?? noCursor

/** The state after one more event; cursors only move forward. */
export function evolveReceipts(state: ReceiptsState, event: Fact<ReceiptEvent>): ReceiptsState {
  const { userId, seq } = event.data
  const cursor = cursorOf(state, userId)
  const moved =
    event.type === 'ReadUpTo'
      ? { ...cursor, readSeq: Math.max(seq, cursor.readSeq ?? 0) }
      : { ...cursor, deliveredSeq: Math.max(seq, cursor.deliveredSeq ?? 0) }
  return { cursors: state.cursors.set(userId, moved) }
}

/** Decides one move of one cursor: forward, or unchanged. */
export function decideReceipts(state: ReceiptsState, command: ReceiptsCommand): Decision<ReceiptEvent> {
  const cursor = cursorOf(state, command.userId)
  switch (command.type) {
    case 'MarkRead':
      if (command.seq <= Math.max(cursor.readSeq ?? -1, command.sentSeq ?? -1)) return unchanged
      return decided({ type: 'ReadUpTo', data: { userId: command.userId, seq: command.seq, ordinal: command.ordinal } })
    case 'MarkDelivered':
      if (command.seq <= (cursor.deliveredSeq ?? -1)) return unchanged
      return decided({ type: 'DeliveredUpTo', data: { userId: command.userId, seq: command.seq } })
    default:
      return unreachable(command)
  }
}

export const receiptsToJson = (state: ReceiptsState): unknown => [...state.cursors]
export const receiptsFromJson = (json: unknown): ReceiptsState => ({ cursors: PersistentMap(json as [string, Cursor][]) })
