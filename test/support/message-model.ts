import type { MessageFacts } from '../../src/domain/conversation/commands.js'
import type { ConversationEvent, Fact } from '../../src/domain/events.js'

/** What is true of one message after these facts of its conversation: told in the plainest way, to hold the real parts to. */
export function messageFactsAfter(
  facts: readonly Fact<ConversationEvent>[],
  seq: number,
  reaction?: { userId: string; emoji: string },
): MessageFacts | undefined {
  const sent = facts.find((fact) => fact.revision === seq)
  if (sent?.type !== 'MessageSent') return undefined
  const of = facts.filter((fact) => 'messageSeq' in fact.data && fact.data.messageSeq === seq)
  const edits = of.filter((fact) => fact.type === 'MessageEdited')
  const given = new Map<string, Set<string>>()
  for (const fact of of) {
    if (fact.type !== 'ReactionAdded' && fact.type !== 'ReactionRemoved') continue
    const givers = given.get(fact.data.emoji) ?? new Set()
    if (fact.type === 'ReactionAdded') givers.add(fact.metadata.actor.userId ?? '')
    else givers.delete(fact.metadata.actor.userId ?? '')
    given.set(fact.data.emoji, givers)
  }
  return {
    seq,
    senderId: sent.metadata.actor.userId ?? '',
    content: edits.at(-1)?.data.content ?? sent.data.content,
    recalled: of.some((fact) => fact.type === 'MessageRecalled'),
    pinned: of.findLast((fact) => fact.type === 'MessagePinned' || fact.type === 'MessageUnpinned')?.type === 'MessagePinned',
    reactions: new Map([...given].map(([emoji, givers]) => [emoji, givers.size] as const).filter(([, count]) => count > 0)),
    reacted: reaction !== undefined && (given.get(reaction.emoji)?.has(reaction.userId) ?? false),
  }
}
