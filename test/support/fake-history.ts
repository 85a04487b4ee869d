import type { MessageFacts } from '../../src/domain/conversation/commands.js'
import { unavailable } from '../../src/domain/errors.js'
import type { ConversationEvent, Fact } from '../../src/domain/events.js'
import type { History } from '../../src/domain/history.js'
import { conversationStream } from '../../src/domain/ids.js'
import type { InMemoryLog } from './in-memory-event-store.js'
import { messageFactsAfter } from './message-model.js'

/** The message history as of a revision that a test sets: it lags, waits and fails as told. */
export class FakeHistory implements History {
  readonly #log: InMemoryLog
  /** It has seen this many facts of each conversation; all, where Infinity. */
  seen = Infinity
  /** Does not get any further: who waits is told to come back. */
  isStuck = false
  readonly asked: string[] = []

  constructor(log: InMemoryLog) {
    this.#log = log
  }

  async findSentMessage(
    conversationId: string,
    senderId: string,
    clientMessageId: string,
  ): Promise<{ asOf: number; seq: number | undefined }> {
    this.asked.push(`findSentMessage ${clientMessageId}`)
    const facts = this.#facts(conversationId)
    const found = facts.find(
      (fact) => fact.type === 'MessageSent' && fact.metadata.actor.userId === senderId && fact.data.clientMessageId === clientMessageId,
    )
    return { asOf: facts.length - 1, seq: found?.revision }
  }

  async findSentIds(
    conversationId: string,
    senderId: string,
    after: number,
    limit: number,
  ): Promise<{ asOf: number; sent: { clientMessageId: string; seq: number }[] }> {
    this.asked.push(`findSentIds after ${after}`)
    const facts = this.#facts(conversationId)
    const sent = facts.flatMap((fact) =>
      fact.type === 'MessageSent' && fact.metadata.actor.userId === senderId && fact.revision > after
        ? [{ clientMessageId: fact.data.clientMessageId, seq: fact.revision }]
        : [],
    )
    return { asOf: facts.length - 1, sent: sent.slice(0, limit) }
  }

  async findMessageFacts(
    conversationId: string,
    seq: number,
    reaction?: { userId: string; emoji: string },
  ): Promise<{ asOf: number; message: MessageFacts | undefined }> {
    this.asked.push(`findMessageFacts ${seq}`)
    const facts = this.#facts(conversationId)
    return { asOf: facts.length - 1, message: messageFactsAfter(facts, seq, reaction) }
  }

  async findRecalled(conversationId: string, seqs: readonly number[]): Promise<{ asOf: number; recalled: ReadonlySet<number> }> {
    this.asked.push('findRecalled')
    const facts = this.#facts(conversationId)
    const recalled = facts.flatMap((fact) =>
      fact.type === 'MessageRecalled' && seqs.includes(fact.data.messageSeq) ? [fact.data.messageSeq] : [],
    )
    return { asOf: facts.length - 1, recalled: new Set(recalled) }
  }

  async findOrdinal(conversationId: string, seq: number): Promise<{ asOf: number; ordinal: number }> {
    this.asked.push(`findOrdinal ${seq}`)
    const facts = this.#facts(conversationId)
    const sent = facts.flatMap((fact) => (fact.type === 'MessageSent' && fact.revision <= seq ? [fact.data.ordinal] : []))
    return { asOf: facts.length - 1, ordinal: sent.at(-1) ?? 0 }
  }

  async waitForRevision(_: string, revision: number): Promise<void> {
    this.asked.push(`waitForRevision ${revision}`)
    if (this.isStuck) throw unavailable('The history is behind.')
    this.seen = Math.max(this.seen, revision + 1)
  }

  async waitForPosition(position: string): Promise<void> {
    this.asked.push(`waitForPosition ${position}`)
    if (this.isStuck) throw unavailable('The history is behind.')
  }

  #facts(conversationId: string): Fact<ConversationEvent>[] {
    const events = this.#log.streams.get(conversationStream(conversationId)) ?? []
    return events.slice(0, this.seen) as unknown as Fact<ConversationEvent>[]
  }
}
