import { expect, test } from 'vitest'
import {
  type ConversationState,
  evolve,
  noConversation,
  stateFromJson,
  stateToJson,
  weightOf,
} from '../../src/domain/conversation/state.js'
import type { ConversationEvent, Fact } from '../../src/domain/events.js'

const fact = (revision: number, event: { type: string; data: object }, userId = 'anna') =>
  ({ ...event, revision, metadata: { actor: { userId }, at: 1_700_000_000_000 } }) as unknown as Fact<ConversationEvent>

const created = fact(0, {
  type: 'ConversationCreated',
  data: { type: 'group', joinPolicy: 'open', members: [{ userId: 'anna', role: 'owner' }] },
})
const content = (text: string) => ({ type: 'text', text })

function fold(events: readonly Fact<ConversationEvent>[]): ConversationState {
  return events.reduce(evolve, noConversation)
}

/** A window full of the largest edits. */
function edited(): ConversationState {
  const large = 'x'.repeat(32_000)
  const edits = Array.from({ length: 1_990 }, (_, n) =>
    fact(n + 2, { type: 'MessageEdited', data: { messageSeq: 1, content: content(`${n} ${large}`) } }),
  )
  return fold([created, fact(1, { type: 'MessageSent', data: { clientMessageId: 'm', ordinal: 1, content: content('x') } }), ...edits])
}

test('a window full of the largest edits takes as much as one of small changes, and its snapshot too', () => {
  const state = edited()
  const text = JSON.stringify(stateToJson(state))
  expect(text.length).toBeLessThan(500_000)
  expect(weightOf(state)).toBeLessThan(1_000_000)
  expect(weightOf(state)).toBeGreaterThan(text.length / 2)
  expect(weightOf(stateFromJson(JSON.parse(text)))).toBe(weightOf(state))
})

test('somebody who has left leaves nothing behind in the state, however many came and went', () => {
  const visits = Array.from({ length: 300 }, (_, n) => [
    fact(n * 3 + 1, { type: 'MemberJoined', data: { userId: `u${n}`, role: 'member' } }, `u${n}`),
    fact(n * 3 + 2, { type: 'MessageSent', data: { clientMessageId: `m${n}`, ordinal: n + 1, content: content('x') } }, `u${n}`),
    fact(n * 3 + 3, { type: 'MemberLeft', data: { userId: `u${n}` } }, `u${n}`),
  ]).flat()
  const state = fold([created, ...visits])
  expect([...state.lastSent].map(([id]) => id)).toEqual([])
  expect(state.members.size).toBe(1)
})
