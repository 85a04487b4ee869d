import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { ReceiptEvent } from '../../src/domain/events.js'
import {
  type ReceiptsCommand,
  cursorOf,
  decideReceipts,
  evolveReceipts,
  noReceipts,
  receiptsFromJson,
  receiptsToJson,
} from '../../src/domain/receipts/receipts.js'
import { metadataOf } from '../support/given.js'
import { givenReceipts, receiptsAfter } from '../support/given-user.js'

const since = (joinedSeq?: number) => (joinedSeq === undefined ? {} : { joinedSeq })
const read = (userId: string, seq: number, joinedSeq?: number): ReceiptEvent => ({
  type: 'ReadUpTo',
  data: { userId, seq, ordinal: seq, ...since(joinedSeq) },
})
const delivered = (userId: string, seq: number, joinedSeq?: number): ReceiptEvent => ({
  type: 'DeliveredUpTo',
  data: { userId, seq, ...since(joinedSeq) },
})
const markRead = (userId: string, seq: number, sentSeq: number | null = null, joinedSeq = 0): ReceiptsCommand => ({
  type: 'MarkRead',
  userId,
  seq,
  ordinal: seq,
  sentSeq,
  joinedSeq,
})
const markDelivered = (userId: string, seq: number, joinedSeq = 0): ReceiptsCommand => ({ type: 'MarkDelivered', userId, seq, joinedSeq })

describe('a read cursor', () => {
  test('begins nowhere, and may begin at 0', () => {
    expect(cursorOf(noReceipts, 'ben', 0)).toEqual({ readSeq: null, deliveredSeq: null, joinedSeq: 0 })
    givenReceipts().when(markRead('ben', 0)).thenEvents(read('ben', 0))
  })
  test('moves forward', () => givenReceipts(read('ben', 4)).when(markRead('ben', 5)).thenEvents(read('ben', 5)))
  test.each([3, 4])('at 4 does not move to %i', (seq) => givenReceipts(read('ben', 4)).when(markRead('ben', seq)).thenUnchanged())
  test('is moved by sending', () =>
    givenReceipts(read('ben', 4))
      .when(markRead('ben', 6, 6))
      .thenUnchanged())
  test('moves on from what one sent', () =>
    givenReceipts()
      .when(markRead('ben', 7, 6))
      .thenEvents(read('ben', 7)))
  test('is each member’s own', () => givenReceipts(read('ben', 9)).when(markRead('cleo', 4)).thenEvents(read('cleo', 4)))
  test('is not moved by what was delivered', () => givenReceipts(delivered('ben', 9)).when(markRead('ben', 4)).thenEvents(read('ben', 4)))
})

describe('a delivered cursor', () => {
  test('begins at 0', () => givenReceipts().when(markDelivered('ben', 0)).thenEvents(delivered('ben', 0)))
  test('moves forward', () => givenReceipts(delivered('ben', 4)).when(markDelivered('ben', 5)).thenEvents(delivered('ben', 5)))
  test.each([3, 4])('at 4 does not move to %i', (seq) => givenReceipts(delivered('ben', 4)).when(markDelivered('ben', seq)).thenUnchanged())
  test('is not moved by reading', () => givenReceipts(read('ben', 9)).when(markDelivered('ben', 4)).thenEvents(delivered('ben', 4)))
})

describe('a member that left and joined again at 10', () => {
  test('reads from nowhere, also what it had read before', () =>
    givenReceipts(read('ben', 9))
      .when(markRead('ben', 4, null, 10))
      .thenEvents(read('ben', 4, 10)))
  test('moves forward from there', () =>
    givenReceipts(read('ben', 9), read('ben', 4, 10))
      .when(markRead('ben', 3, null, 10))
      .thenUnchanged())
  test('has received nothing yet', () =>
    givenReceipts(delivered('ben', 9))
      .when(markDelivered('ben', 4, 10))
      .thenEvents(delivered('ben', 4, 10)))
  test.each([markRead('ben', 9, null, 3), markDelivered('ben', 9, 3)])('has no cursors any more for the one before: %o', (late) =>
    givenReceipts(read('ben', 4, 10))
      .when(late)
      .thenUnchanged(),
  )
  test('is not moved by a fact of the membership before that another node wrote late', () => {
    const state = receiptsAfter(read('ben', 4, 10), read('ben', 9), delivered('ben', 9))
    expect(cursorOf(state, 'ben', 10)).toEqual({ readSeq: 4, deliveredSeq: null, joinedSeq: 10 })
  })
})

const command = fc.record({ userId: fc.constantFrom('ben', 'cleo'), seq: fc.nat(20), isRead: fc.boolean() })

test('cursors never move back, through snapshots too', () => {
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), fc.nat(60), (commands, snapshotAt) => {
      let state = noReceipts
      let revision = 0
      for (const [i, { userId, seq, isRead }] of commands.entries()) {
        const before = cursorOf(state, userId, 0)
        const decision = decideReceipts(state, isRead ? markRead(userId, seq) : markDelivered(userId, seq), {})
        for (const event of decision.kind === 'events' ? decision.events : []) {
          state = evolveReceipts(state, {
            ...event,
            stream: 'receipts-c',
            revision,
            metadata: metadataOf(userId, revision++),
          })
        }
        const now = cursorOf(state, userId, 0)
        const [moved, was, other, otherWas] = isRead
          ? [now.readSeq, before.readSeq, now.deliveredSeq, before.deliveredSeq]
          : [now.deliveredSeq, before.deliveredSeq, now.readSeq, before.readSeq]
        expect([moved, other]).toEqual([Math.max(seq, was ?? 0), otherWas])
        expect(decision.kind).toBe(seq > (was ?? -1) ? 'events' : 'unchanged')
        if (i === snapshotAt) state = receiptsFromJson(JSON.parse(JSON.stringify(receiptsToJson(state))))
      }
    }),
  )
})

test('a fact that would move a cursor back is folded to no effect: two nodes may have raced', () => {
  expect(cursorOf(receiptsAfter(read('ben', 7), read('ben', 4), delivered('ben', 3), delivered('ben', 2)), 'ben', 0)).toEqual({
    readSeq: 7,
    deliveredSeq: 3,
    joinedSeq: 0,
  })
})
