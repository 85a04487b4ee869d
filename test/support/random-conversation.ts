import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import type { ConversationCommand } from '../../src/domain/conversation/commands.js'
import { decide } from '../../src/domain/conversation/decide.js'
import { type ConversationState, evolve, noConversation, stateToJson } from '../../src/domain/conversation/state.js'
import type { Decision } from '../../src/domain/decision.js'
import { Refusal, type RefusalCode } from '../../src/domain/errors.js'
import { type ConversationEvent, type Fact, schemaVersions } from '../../src/domain/events.js'
import { chainHash } from '../../src/domain/hash-chain.js'
import { lookedUp, text } from './given.js'

export const users = ['u0', 'u1', 'u2', 'u3', 'u4'] as const
const emoji = ['👍', '🎉', '🚀']

/** What somebody does next; `pick` chooses among the messages that there are then, so that most of it makes sense. */
export interface Step {
  userId: string
  pick: number
  kind: ConversationCommand['type']
  target: string
  emoji: string
  word: string
  flag: boolean
  role: 'owner' | 'admin' | 'member'
  blocked: boolean
}

const kinds: { weight: number; arbitrary: fc.Arbitrary<ConversationCommand['type']> }[] = [
  { weight: 8, arbitrary: fc.constant('SendMessage') },
  { weight: 3, arbitrary: fc.constantFrom('Join', 'Leave', 'AddMembers', 'RemoveMember', 'ChangeRole') },
  { weight: 6, arbitrary: fc.constantFrom('EditMessage', 'AddReaction', 'RemoveReaction', 'PinMessage', 'UnpinMessage') },
  { weight: 2, arbitrary: fc.constantFrom('UpdateConversation') },
  { weight: 1, arbitrary: fc.constantFrom('RecallMessage', 'CreateConversation') },
]

export const step: fc.Arbitrary<Step> = fc.record({
  userId: fc.constantFrom(...users),
  pick: fc.nat(1_000),
  kind: fc.oneof(...kinds),
  target: fc.constantFrom(...users),
  emoji: fc.constantFrom(...emoji),
  word: fc.constantFrom('a', 'b', 'c', 'd'),
  flag: fc.boolean(),
  role: fc.constantFrom('owner', 'admin', 'member'),
  blocked: fc.boolean(),
})

export const steps = (maxLength: number) => fc.array(step, { minLength: 1, maxLength, size: 'max' })

export type Recorded = Fact<ConversationEvent> & { id: string; dataJson: string }

/** A conversation that random steps are tried on. */
export class RandomConversation {
  state: ConversationState = noConversation
  readonly facts: Recorded[] = []

  constructor(type: 'group' | 'direct', joinPolicy: 'open' | 'invite' = 'open') {
    const memberIds = type === 'group' ? ['u1', 'u2'] : ['u1']
    this.try({ type: 'CreateConversation', conversationType: type, memberIds, joinPolicy }, 'u0')
  }

  /** Decides on what was looked up as of `asOf`; what is decided happens. */
  try(
    command: ConversationCommand,
    userId: string,
    { asOf = this.state.head, blocked = false } = {},
  ): Decision<ConversationEvent> | RefusalCode {
    const decision = this.decide(command, userId, asOf, blocked)
    if (typeof decision !== 'string' && decision.kind === 'events') for (const event of decision.events) this.record(event, userId)
    return decision
  }

  decide(command: ConversationCommand, userId: string, asOf: number, blocked = false): Decision<ConversationEvent> | RefusalCode {
    try {
      return decide(this.state, command, userId, { ...lookedUp(this.facts, userId, command, asOf), membersMax: 4, blocked })
    } catch (error) {
      if (error instanceof Refusal) return error.code
      throw error
    }
  }

  record({ type, data }: ConversationEvent, userId: string): void {
    const [id, stream, revision, dataJson, at, actor] = [
      randomUUID(),
      'conversation-c',
      this.facts.length,
      JSON.stringify(data),
      1_700_000_000_000 + this.facts.length,
      { userId },
    ]
    const hash = chainHash(this.facts.at(-1)?.metadata.hash ?? '', { stream, revision, id, type, dataJson, actor, at })
    const metadata = { actor, at, correlationId: 'r', causationId: null, schemaVersion: schemaVersions[type], hash }
    const fact = { id, type, stream, revision, data: JSON.parse(dataJson), dataJson, metadata } as unknown as Recorded
    this.facts.push(fact)
    this.state = evolve(this.state, fact)
  }

  commandOf({ kind, pick, target, emoji: reaction, word, flag, role }: Step): ConversationCommand {
    const messages = this.facts.filter((fact) => fact.type === 'MessageSent')
    // Mostly a message, now and then another fact or nothing.
    const seq = pick % 10 === 0 ? pick % (this.facts.length + 2) : (messages[pick % Math.max(1, messages.length)]?.revision ?? 0)
    switch (kind) {
      case 'CreateConversation':
        return { type: kind, conversationType: this.state.type, memberIds: [target] }
      case 'UpdateConversation':
        return { type: kind, ...(flag ? { frozen: pick % 2 === 0 } : { custom: { word } }) }
      case 'AddMembers':
        return { type: kind, userIds: flag ? [target] : [target, ...users.slice(pick % 5)] }
      case 'ChangeRole':
        return { type: kind, userId: target, role }
      case 'RemoveMember':
        return { type: kind, userId: target }
      case 'Join':
      case 'Leave':
        return { type: kind }
      case 'SendMessage':
        return {
          type: kind,
          clientMessageId: flag ? `m${pick % 20}` : `n${this.facts.length}`,
          content: text(word),
          ...(pick % 7 === 0 ? { replyToSeq: seq } : {}),
        }
      case 'EditMessage':
        return { type: kind, seq, content: text(word) }
      case 'RecallMessage':
      case 'PinMessage':
      case 'UnpinMessage':
        return { type: kind, seq }
      case 'AddReaction':
      case 'RemoveReaction':
        return { type: kind, seq, emoji: reaction }
    }
  }
}

/** A state in a form that compares: the order in which maps are walked says nothing. */
export function plain(state: ConversationState): unknown {
  const { members: _, lastSent, younger, older, ...rest } = JSON.parse(JSON.stringify(stateToJson(state))) as Record<string, never>
  const sorted = (entries: [string, unknown][]) => entries.toSorted(([one], [other]) => (one < other ? -1 : 1))
  const recent = ({ since, messages, changes }: { since: number; messages: [string, unknown][]; changes: unknown[] }) => ({
    since,
    messages: sorted(messages),
    changes,
  })
  return { ...rest, members: sorted([...state.members]), lastSent: sorted(lastSent!), younger: recent(younger!), older: recent(older!) }
}
