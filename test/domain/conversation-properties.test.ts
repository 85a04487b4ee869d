import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type ConversationState,
  GENERATION_REVISIONS,
  changesSince,
  evolve,
  findRecentMessage,
  messageKey,
  noConversation,
  recentlyRecalled,
  stateFromJson,
  stateToJson,
  windowStart,
} from '../../src/domain/conversation/state.js'
import type { ConversationEvent, Fact } from '../../src/domain/events.js'
import { text } from '../support/given.js'
import { findBrokenLink } from '../support/hash-chain.js'
import { type Recorded, RandomConversation, type Step, plain, steps } from '../support/random-conversation.js'

// A failing property prints its seed and path: hand them to fc.assert to see it again.
const runs = { numRuns: 100 }
const conversation = fc.record({
  type: fc.constantFrom('group', 'group', 'group', 'direct'),
  joinPolicy: fc.constantFrom('open', 'invite'),
  steps: steps(80),
})
type Conversation = { type: 'group' | 'direct'; joinPolicy: 'open' | 'invite'; steps: Step[] }

function play(
  { type, joinPolicy, steps: tried }: Conversation,
  after: (it: RandomConversation, step: Step, before: ConversationState) => void = () => {},
): RandomConversation {
  const it = new RandomConversation(type, joinPolicy)
  for (const step of tried) {
    const before = it.state
    it.try(it.commandOf(step), step.userId, { blocked: type === 'direct' && step.blocked })
    after(it, step, before)
  }
  return it
}

const throughSnapshot = (state: ConversationState) => stateFromJson(JSON.parse(JSON.stringify(stateToJson(state))))
const sentMessages = (facts: readonly Fact<ConversationEvent>[]) => facts.filter((fact) => fact.type === 'MessageSent')

describe('whatever anybody does to a conversation', () => {
  test('head is the last revision, ordinals are dense, and the last message is the last', () => {
    fc.assert(
      fc.property(conversation, (tried) => {
        const { facts, state } = play(tried)
        const messages = sentMessages(facts)
        expect(state.head).toBe(facts.length - 1)
        expect(messages.map((message) => message.data.ordinal)).toEqual(messages.map((_, i) => i + 1))
        expect([state.lastOrdinal, state.lastMessageSeq]).toEqual([messages.length, messages.at(-1)?.revision ?? 0])
      }),
      runs,
    )
  })

  test('a group has exactly one owner as long as it has a member, and a direct conversation its two members', () => {
    fc.assert(
      fc.property(conversation, (tried) => {
        play(tried, ({ state }) => {
          const owners = [...state.members].filter(([, { role }]) => role === 'owner').map(([userId]) => userId)
          if (state.type === 'direct') expect([...state.members].map(([userId]) => userId).sort()).toEqual(['u0', 'u1'])
          else expect(owners).toHaveLength(state.members.size > 0 ? 1 : 0)
          expect(state.ownerId).toBe(owners[0] ?? null)
          expect(state.members.size).toBeLessThanOrEqual(4)
          expect(new Set([...state.members].map(([, { rank }]) => rank)).size).toBe(state.members.size)
        })
      }),
      runs,
    )
  })

  test('nobody does what is not its right', () => {
    fc.assert(
      fc.property(conversation, (tried) => {
        play(tried, ({ state, facts }, { userId, blocked }, before) => {
          for (const fact of facts.slice(before.head + 1))
            expect(wrongOf(fact, before, facts, userId, blocked && state.type === 'direct')).toBeUndefined()
        })
      }),
      runs,
    )
  })

  test('folding its facts again gives the same state, through a snapshot anywhere too', () => {
    fc.assert(
      fc.property(conversation, fc.nat(), (tried, at) => {
        const { facts, state } = play(tried)
        const cut = at % (facts.length + 1)
        expect(plain(facts.reduce(evolve, noConversation))).toEqual(plain(state))
        const snapshot = throughSnapshot(facts.slice(0, cut).reduce(evolve, noConversation))
        expect(plain(facts.slice(cut).reduce(evolve, snapshot))).toEqual(plain(state))
      }),
      runs,
    )
  })

  test('a decision leaves no trace in the state it was made on', () => {
    fc.assert(
      fc.property(conversation, (tried) => {
        const kept: [ConversationState, unknown][] = []
        play(tried, ({ state }) => kept.push([state, plain(state)]))
        for (const [state, was] of kept) expect(plain(state)).toEqual(was)
      }),
      { numRuns: 30 },
    )
  })

  test('a look-up of any age that the window joins up with gives the same decision', () => {
    fc.assert(
      fc.property(conversation, steps(20), fc.nat(), (tried, further, age) => {
        const it = play(tried)
        for (const step of further) {
          const command = it.commandOf(step)
          const asOf = windowStart(it.state) + (age % (it.state.head - windowStart(it.state) + 1))
          expect(it.decide(command, step.userId, asOf)).toEqual(it.decide(command, step.userId, it.state.head))
        }
      }),
      runs,
    )
  })

  test('a message decided twice changes nothing, and gives its first seq', () => {
    fc.assert(
      fc.property(conversation, (tried) => {
        const it = play(tried)
        for (const message of sentMessages(it.facts)) {
          const userId = message.metadata.actor.userId!
          const again = it.decide(
            { type: 'SendMessage', clientMessageId: message.data.clientMessageId, content: text('anything') },
            userId,
            it.state.head,
            true,
          )
          expect(again).toEqual(it.state.members.has(userId) ? { kind: 'resent', seq: message.revision } : 'not_found')
        }
      }),
      runs,
    )
  })
})

/** An independent, plain reading of the contract's rules: why this fact should not be there, or undefined. */
function wrongOf(
  fact: Recorded,
  before: ConversationState,
  facts: readonly Recorded[],
  userId: string,
  blocked: boolean,
): string | undefined {
  const role = before.members.get(userId)?.role
  const moderates = role === 'owner' || role === 'admin'
  const isGroup = before.type === 'group'
  if (
    role === undefined &&
    fact.type !== 'ConversationCreated' &&
    !(fact.type === 'MemberJoined' && fact.data.userId === userId && before.joinPolicy === 'open')
  )
    return 'a stranger'
  const speaks = ['MessageSent', 'MessageEdited', 'ReactionAdded', 'ReactionRemoved', 'MessagePinned', 'MessageUnpinned'].includes(
    fact.type,
  )
  if (speaks && blocked) return 'blocked'
  if (speaks && before.frozen && !moderates) return 'frozen'
  if ((fact.type === 'MessagePinned' || fact.type === 'MessageUnpinned') && isGroup && !moderates) return 'pins'
  if (fact.type === 'ConversationUpdated' && isGroup && !moderates) return 'updates'
  if (fact.type === 'MemberRoleChanged' && role !== 'owner') return 'gives roles'
  if (fact.type === 'MemberRemoved' && !(role === 'owner' || (role === 'admin' && before.members.get(fact.data.userId)?.role === 'member')))
    return 'removes'
  if (!isGroup && (fact.type.startsWith('Member') || fact.type === 'ConversationFrozen' || fact.type === 'ConversationUnfrozen'))
    return 'direct'
  if (!('messageSeq' in fact.data)) return undefined
  const { messageSeq } = fact.data
  const message = facts[messageSeq]
  const isRecalled = facts.slice(0, fact.revision).some((other) => other.type === 'MessageRecalled' && other.data.messageSeq === messageSeq)
  if (message?.type !== 'MessageSent') return 'no message'
  if (isRecalled && ['MessageEdited', 'ReactionAdded', 'MessagePinned', 'MessageRecalled'].includes(fact.type)) return 'recalled'
  if (fact.type === 'MessageEdited' && message.metadata.actor.userId !== userId) return 'edits what is not its own'
  if (fact.type === 'MessageRecalled' && message.metadata.actor.userId !== userId && !moderates) return 'recalls what is not its own'
  return undefined
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => number): Map<number, T[]> {
  const groups = new Map<number, T[]>()
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item])
  return groups
}

describe('the window', () => {
  /** Long enough to rotate several times. */
  const length = 3 * GENERATION_REVISIONS + 500

  test('knows every message and change after its start, and forgets what is before', () => {
    fc.assert(
      fc.property(steps(40), fc.nat(length - 1), (tried, from) => {
        const it = new RandomConversation('group')
        // The same steps over and over, each on the messages that there are by then.
        for (let i = 0; it.facts.length < length; i++) {
          const step = tried[i % tried.length]!
          if (i % 3 === 0)
            it.record(
              { type: 'MessageSent', data: { clientMessageId: `s${i}`, ordinal: it.state.lastOrdinal + 1, content: text(step.word) } },
              step.userId,
            )
          else it.record(randomChange(step, it.facts.length), step.userId)
        }
        for (const head of [from, from + 1, 999, 1_000, 1_999, 2_000, 2_999, 3_000, length - 1]) holdsWindow(it.facts.slice(0, head + 1))
      }),
      { numRuns: 3 },
    )
  })

  function randomChange(step: Step, revision: number): ConversationEvent {
    const messageSeq = (step.pick * 7 + revision) % revision
    if (step.flag) return { type: 'MessageEdited', data: { messageSeq, content: text(step.word) } }
    if (step.blocked) return { type: 'MessageRecalled', data: { messageSeq } }
    return { type: 'ReactionAdded', data: { messageSeq, emoji: step.emoji } }
  }

  function holdsWindow(facts: readonly Fact<ConversationEvent>[]): void {
    const state = throughSnapshot(facts.reduce(evolve, noConversation))
    const start = windowStart(state)
    // All of it while it is short; then one to two generations.
    if (facts.length <= 2 * GENERATION_REVISIONS) expect(start).toBe(-1)
    else expect(state.head - start).toSatisfy((reach: number) => reach >= GENERATION_REVISIONS && reach <= 2 * GENERATION_REVISIONS)
    const inside = facts.filter((fact) => fact.revision > start)
    const found = sentMessages(facts).map((message) =>
      findRecentMessage(state, messageKey(message.metadata.actor.userId!, message.data.clientMessageId)),
    )
    expect(found).toEqual(sentMessages(facts).map(({ revision }) => (revision > start ? revision : undefined)))
    const changes = groupBy(
      inside.filter((fact) => 'messageSeq' in fact.data),
      (fact) => (fact.data as { messageSeq: number }).messageSeq,
    )
    for (const [messageSeq, ofMessage] of [...changes].slice(0, 100)) {
      const revisions = ofMessage.map((fact) => fact.revision)
      const middle = revisions[revisions.length >> 1]!
      const seen = [start, middle].map((after) => changesSince(state, messageSeq, after).map((change) => change.revision))
      expect(seen).toEqual([revisions, revisions.filter((revision) => revision > middle)])
    }
    const recalled = inside.filter((fact) => fact.type === 'MessageRecalled').map((fact) => fact.data.messageSeq)
    expect(recentlyRecalled(state)).toEqual(new Set(recalled))
  }
})

describe('the hash chain', () => {
  const chain = (tried: Conversation) => play(tried).facts.map((fact) => ({ ...fact, data: undefined }))

  test('of every conversation verifies', () => {
    fc.assert(
      fc.property(conversation, (tried) => {
        expect(findBrokenLink(chain(tried))).toBeUndefined()
      }),
      runs,
    )
  })

  type Link = ReturnType<typeof chain>[number]
  const tamperings: Record<string, (link: Link) => Link> = {
    stream: (link) => ({ ...link, stream: `${link.stream}x` }),
    revision: (link) => ({ ...link, revision: link.revision + 1 }),
    id: (link) => ({ ...link, id: link.id.replace(/^./, (first) => (first === '0' ? '1' : '0')) }),
    type: (link) => ({ ...link, type: link.type === 'MessageSent' ? 'MessageEdited' : 'MessageSent' }),
    data: (link) => ({ ...link, dataJson: JSON.stringify({ ...(JSON.parse(link.dataJson) as object), extra: 1 }) }),
    actor: (link) => ({ ...link, metadata: { ...link.metadata, actor: { userId: `${link.metadata.actor.userId}x` } } }),
    app: (link) => ({ ...link, metadata: { ...link.metadata, actor: { userId: link.metadata.actor.userId!, app: 'shop' } } }),
    at: (link) => ({ ...link, metadata: { ...link.metadata, at: link.metadata.at + 1 } }),
    hash: (link) => ({
      ...link,
      metadata: { ...link.metadata, hash: link.metadata.hash.replace(/^./, (first) => (first === 'A' ? 'B' : 'A')) },
    }),
  }

  test.each(Object.keys(tamperings))('shows where %s was tampered with', (field) => {
    fc.assert(
      fc.property(conversation, fc.nat(), (tried, pick) => {
        const links = chain(tried)
        const at = pick % links.length
        expect(findBrokenLink(links.with(at, tamperings[field]!(links[at]!)))).toBe(at)
      }),
      { numRuns: 40 },
    )
  })

  test('shows where an event was taken out, put in or moved', () => {
    fc.assert(
      fc.property(conversation, fc.nat(), (tried, pick) => {
        const links = chain(tried)
        const at = pick % links.length
        fc.pre(at < links.length - 1)
        expect(findBrokenLink(links.toSpliced(at, 1))).toBe(at)
        expect(findBrokenLink(links.toSpliced(at, 0, links[at]!))).toBe(at + 1)
        expect(findBrokenLink(links.with(at, links[at + 1]!).with(at + 1, links[at]!))).toBe(at)
      }),
      { numRuns: 40 },
    )
  })

  test('the random steps reach every kind of fact and refusal', () => {
    const seen = new Set<string>()
    for (const tried of fc.sample(conversation, { numRuns: 300, seed: 1 })) {
      const it = new RandomConversation(tried.type, tried.joinPolicy)
      for (const step of tried.steps) {
        const decision = it.try(it.commandOf(step), step.userId, { blocked: tried.type === 'direct' && step.blocked })
        seen.add(typeof decision === 'string' ? decision : decision.kind)
      }
      for (const fact of it.facts) seen.add(fact.type)
    }
    expect([...seen].sort()).toEqual([
      'ConversationCreated',
      'ConversationFrozen',
      'ConversationUnfrozen',
      'ConversationUpdated',
      'MemberJoined',
      'MemberLeft',
      'MemberRemoved',
      'MemberRoleChanged',
      'MessageEdited',
      'MessagePinned',
      'MessageRecalled',
      'MessageSent',
      'MessageUnpinned',
      'ReactionAdded',
      'ReactionRemoved',
      'already_recalled',
      'blocked',
      'conversation_frozen',
      'direct_conversation',
      'events',
      'forbidden',
      'invalid_request',
      'not_found',
      'resent',
      'unchanged',
    ])
  })
})
