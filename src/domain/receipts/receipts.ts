/** Who has received and read up to where: one stream a conversation, of its own numbering. */
import { type Decision, decided, unchanged } from '../decision.js'
import { unreachable } from '../errors.js'
import type { Fact, ReceiptEvent } from '../events.js'
import { IdMap } from '../id-map.js'

export interface Cursor {
  readSeq: number | null
  deliveredSeq: number | null
  /** Who leaves and joins again begins anew. */
  joinedSeq: number
}

export interface ReceiptsState {
  cursors: IdMap<Cursor>
}

export type ReceiptsCommand =
  /**
   * `ordinal`: that of the last message at or below `seq`, where memory knows it; otherwise it is looked up.
   * `sentSeq`: the reader's own last message, which it has read by sending it.
   */
  | { type: 'MarkRead'; userId: string; seq: number; joinedSeq: number; ordinal: number | undefined; sentSeq: number | null }
  | { type: 'MarkDelivered'; userId: string; seq: number; joinedSeq: number }

/** Holds the look-up of one command. */
export interface ReceiptsContext {
  ordinal?: number
}

export const noReceipts: ReceiptsState = { cursors: IdMap.of() }

/** How far the member is that joined at `joinedSeq`. */
export function cursorOf(state: ReceiptsState, userId: string, joinedSeq: number): Cursor {
  const cursor = state.cursors.get(userId)
  return cursor?.joinedSeq === joinedSeq ? cursor : { readSeq: null, deliveredSeq: null, joinedSeq }
}

/** The state after one more event; cursors only move forward. */
export function evolveReceipts(state: ReceiptsState, event: Fact<ReceiptEvent>): ReceiptsState {
  const { userId, seq, joinedSeq = 0 } = event.data
  // Another node may have written it when the member had left and come back already.
  if (joinedSeq < (state.cursors.get(userId)?.joinedSeq ?? 0)) return state
  const cursor = cursorOf(state, userId, joinedSeq)
  const moved =
    event.type === 'ReadUpTo'
      ? { ...cursor, readSeq: Math.max(seq, cursor.readSeq ?? 0) }
      : { ...cursor, deliveredSeq: Math.max(seq, cursor.deliveredSeq ?? 0) }
  return { cursors: state.cursors.set(userId, moved) }
}

/** Decides one move of one cursor: forward, or unchanged. */
export function decideReceipts(state: ReceiptsState, command: ReceiptsCommand, found: ReceiptsContext): Decision<ReceiptEvent> {
  if (isUnchanged(state, command)) return unchanged
  const { userId, seq, joinedSeq } = command
  const membership = joinedSeq === 0 ? {} : { joinedSeq }
  switch (command.type) {
    case 'MarkRead': {
      const ordinal = command.ordinal ?? found.ordinal
      if (ordinal === undefined) throw new Error('a read cursor moves by an ordinal that was not looked up')
      return decided({ type: 'ReadUpTo', data: { userId, seq, ordinal, ...membership } })
    }
    case 'MarkDelivered':
      return decided({ type: 'DeliveredUpTo', data: { userId, seq, ...membership } })
    default:
      return unreachable(command)
  }
}

/** True if the cursor is at `seq` or beyond it, or is that of a later membership. It stays true, because cursors only move forward. */
export function isUnchanged(state: ReceiptsState, command: ReceiptsCommand): boolean {
  const { userId, seq, joinedSeq } = command
  if (joinedSeq < (state.cursors.get(userId)?.joinedSeq ?? 0)) return true
  const { readSeq, deliveredSeq } = cursorOf(state, userId, joinedSeq)
  return seq <= (command.type === 'MarkRead' ? Math.max(readSeq ?? -1, command.sentSeq ?? -1) : (deliveredSeq ?? -1))
}

export const receiptsToJson = (state: ReceiptsState): unknown => [...state.cursors]
export const receiptsFromJson = (json: unknown): ReceiptsState => ({ cursors: IdMap.of(json as [string, Cursor][]) })
