import { expect } from 'vitest'
import type { ConversationCommand, ConversationContext } from '../../src/domain/conversation/commands.js'
import { decide } from '../../src/domain/conversation/decide.js'
import { type ConversationState, evolve, noConversation } from '../../src/domain/conversation/state.js'
import type { Decision } from '../../src/domain/decision.js'
import { Refusal, type RefusalCode } from '../../src/domain/errors.js'
import type { AnyEvent, Content, ConversationEvent, Fact, Role } from '../../src/domain/events.js'
import { messageFactsAfter } from './message-model.js'

/** Something that somebody did. */
export type Deed<Event extends AnyEvent = ConversationEvent> = Event & { by: string }

/** The facts of a stream, from its beginning. Messages get the ordinal that is theirs. */
export function factsOf(deeds: readonly Deed[]): Fact<ConversationEvent>[] {
  let ordinal = 0
  return deeds.map((deed, revision) => {
    const { type, by } = deed
    const data = deed.type === 'MessageSent' ? { ...deed.data, ordinal: ++ordinal } : deed.data
    return { type, data, stream: 'conversation-c', revision, metadata: metadataOf(by, revision) } as Fact<ConversationEvent>
  })
}

export const metadataOf = (userId: string, revision: number) => ({
  actor: { userId },
  at: 1_000 + revision,
  correlationId: 'r',
  causationId: null,
  schemaVersion: 1,
  hash: '',
})

/** `given(created, frozen).when('ben', send).thenRefused('conversation_frozen')` */
export function given(...deeds: readonly (Deed | readonly Deed[])[]) {
  const facts = factsOf(deeds.flat())
  const state = facts.reduce(evolve, noConversation)
  return {
    state,
    /** Context that is not the usual: nobody blocked, looked up just now. */
    when: (userId: string, command: ConversationCommand, context: Partial<ConversationContext> = {}) =>
      expectations(() => decide(state, command, userId, { ...lookedUp(facts, userId, command), ...context })),
    contextOf: (userId: string, command: ConversationCommand) => lookedUp(facts, userId, command),
    thenState: (check: (state: ConversationState) => void) => check(state),
  }
}

/** What the decision about this command is told, as of the `asOf` first facts. */
export function lookedUp(
  facts: readonly Fact<ConversationEvent>[],
  userId: string,
  command: ConversationCommand,
  asOf = facts.length - 1,
): ConversationContext {
  const context: ConversationContext = { blocked: false, membersMax: 1_000 }
  if (command.type === 'SendMessage' && command.replyToSeq !== undefined)
    context.replyToIsMessage = facts[command.replyToSeq]?.type === 'MessageSent'
  if (!('seq' in command)) return context
  // A message is never looked up as of before it was sent.
  const seen = Math.max(asOf, Math.min(command.seq, facts.length - 1))
  const reaction = 'emoji' in command ? { userId, emoji: command.emoji } : undefined
  return { ...context, asOf: seen, message: messageFactsAfter(facts.slice(0, seen + 1), command.seq, reaction) }
}

/** What a decision came to, to be compared. */
export function expectations<Event extends AnyEvent>(decideIt: () => Decision<Event>) {
  return {
    thenEvents: (...events: Event[]) => expect(decideIt()).toEqual({ kind: 'events', events }),
    thenAccepted: () => expect(decideIt().kind).toBe('events'),
    thenNotRefused: () => expect(decideIt()).toBeDefined(),
    thenUnchanged: () => expect(decideIt()).toEqual({ kind: 'unchanged' }),
    thenResent: (seq: number) => expect(decideIt()).toEqual({ kind: 'resent', seq }),
    thenRefused: (code: RefusalCode, field?: string) => {
      const refusal = refusalOf(decideIt)
      expect(refusal.code).toBe(code)
      if (field !== undefined) expect(refusal.errors?.map((error) => error.field)).toEqual([field])
    },
  }
}

export function refusalOf(act: () => unknown): Refusal {
  try {
    throw new Error(`Not refused: ${JSON.stringify(act())}`)
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
}

// --- the words of the sentences ---

export const text = (words: string): Content => ({ type: 'text', text: words })

/** Anna makes an empty group of which she is the owner. */
export const created = grouped()
export const createdOpen = grouped([], 'open')
export function grouped(memberIds: readonly string[] = [], joinPolicy: 'invite' | 'open' = 'invite'): Deed {
  const members = [{ userId: 'anna', role: 'owner' as const }, ...memberIds.map((userId) => ({ userId, role: 'member' as const }))]
  return { by: 'anna', type: 'ConversationCreated', data: { type: 'group', joinPolicy, members } }
}
/** Anna writes to Ben. */
export const direct: Deed = {
  by: 'anna',
  type: 'ConversationCreated',
  data: { type: 'direct', joinPolicy: 'invite', members: ['anna', 'ben'].map((userId) => ({ userId, role: 'member' })) },
}
export const joined = (userId: string, role: Role = 'member'): Deed => ({ by: userId, type: 'MemberJoined', data: { userId, role } })
export const left = (userId: string): Deed => ({ by: userId, type: 'MemberLeft', data: { userId } })
export const removed = (userId: string): Deed => ({ by: 'anna', type: 'MemberRemoved', data: { userId } })
export const became = (userId: string, role: Role): Deed => ({ by: 'anna', type: 'MemberRoleChanged', data: { userId, role } })
export const frozen: Deed = { by: 'anna', type: 'ConversationFrozen', data: {} }
export const unfrozen: Deed = { by: 'anna', type: 'ConversationUnfrozen', data: {} }
export const sent = (by: string, clientMessageId = 'first', words = 'hello'): Deed => ({
  by,
  type: 'MessageSent',
  data: { clientMessageId, ordinal: 0, content: text(words) },
})
export const edited = (by: string, messageSeq: number, words: string): Deed => ({
  by,
  type: 'MessageEdited',
  data: { messageSeq, content: text(words) },
})
export const recalled = (by: string, messageSeq: number): Deed => ({ by, type: 'MessageRecalled', data: { messageSeq } })
export const reacted = (by: string, messageSeq: number, emoji = '👍'): Deed => ({ by, type: 'ReactionAdded', data: { messageSeq, emoji } })
export const unreacted = (by: string, messageSeq: number, emoji = '👍'): Deed => ({
  by,
  type: 'ReactionRemoved',
  data: { messageSeq, emoji },
})
export const pinned = (by: string, messageSeq: number): Deed => ({ by, type: 'MessagePinned', data: { messageSeq } })
export const unpinned = (by: string, messageSeq: number): Deed => ({ by, type: 'MessageUnpinned', data: { messageSeq } })

/** Anna owns, Ada is admin, Ben and Cleo are members; the next seq is 4. Zoe is a stranger. */
export const team: readonly Deed[] = [created, joined('ada', 'admin'), joined('ben'), joined('cleo')]

/** All but creating and sending. */
export type Change = Exclude<ConversationCommand, { type: 'CreateConversation' | 'SendMessage' }>

type Send = Extract<ConversationCommand, { type: 'SendMessage' }>
export const sending = (more: Partial<Send> = {}): Send => ({
  type: 'SendMessage',
  clientMessageId: 'new',
  content: text('hello'),
  ...more,
})
export const send = sending()
export const update = (changes: Omit<Extract<ConversationCommand, { type: 'UpdateConversation' }>, 'type'>): Change => ({
  type: 'UpdateConversation',
  ...changes,
})
export const add = (...userIds: string[]): Change => ({ type: 'AddMembers', userIds })
export const remove = (userId: string): Change => ({ type: 'RemoveMember', userId })
export const giveRole = (userId: string, role: Role): Change => ({ type: 'ChangeRole', userId, role })
export const join: Change = { type: 'Join' }
export const leave: Change = { type: 'Leave' }
export const edit = (seq: number, words = 'better'): Change => ({ type: 'EditMessage', seq, content: text(words) })
export const recall = (seq: number): Change => ({ type: 'RecallMessage', seq })
export const react = (seq: number, emoji = '👍'): Change => ({ type: 'AddReaction', seq, emoji })
export const unreact = (seq: number, emoji = '👍'): Change => ({ type: 'RemoveReaction', seq, emoji })
export const pin = (seq: number): Change => ({ type: 'PinMessage', seq })
export const unpin = (seq: number): Change => ({ type: 'UnpinMessage', seq })
