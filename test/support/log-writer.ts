import { chainHash } from '../../src/domain/hash-chain.js'
import { type Actor, type EventStore, type Position, ProposedEvent } from '../../src/domain/event-store.js'
import type { AnyEvent, Content, ConversationEvent, ConversationType, Role } from '../../src/domain/events.js'
import { schemaVersions } from '../../src/domain/events.js'
import { conversationStream, receiptsStream, userStream } from '../../src/domain/ids.js'
import { randomUUID } from 'node:crypto'

export const text = (said: string): Content => ({ type: 'text', text: said })

/** Writes well-formed events into a log, each a second after the last: the facts, without anybody deciding. */
export class LogWriter {
  readonly #store: EventStore
  readonly #streams = new Map<string, { revision: number; hash: string }>()
  readonly #ordinals = new Map<string, number>()
  readonly #joinedSeqs = new Map<string, number>()
  now = Date.UTC(2026, 0, 1)
  position: Position = ''

  constructor(store: EventStore) {
    this.#store = store
  }

  /** Goes on behind what others have written to a stream. */
  async goOnBehind(stream: string): Promise<void> {
    const { events } = await this.#store.readStream(stream, { limit: 1, direction: 'backwards' })
    const last = events[0]!
    this.#streams.set(stream, { revision: last.revision, hash: last.metadata.hash })
    this.now = last.metadata.at
  }

  /** The `seq` of the (last) event. */
  async append(stream: string, actor: Actor, ...events: AnyEvent[]): Promise<number> {
    const result = await this.#store.append(this.propose(stream, actor, ...events))
    if (result.outcome !== 'appended') throw new Error(`The append to ${stream} was a ${result.outcome}`)
    const last = result.events.at(-1)!
    this.position = last.position
    return last.revision
  }

  propose(stream: string, actor: Actor, ...events: AnyEvent[]) {
    const expectedRevision = this.#streams.get(stream)?.revision ?? -1
    return { stream, expectedRevision, events: events.map((event) => this.#proposed(stream, actor, event)) }
  }

  #proposed(stream: string, actor: Actor, { type, data }: AnyEvent): ProposedEvent {
    const last = this.#streams.get(stream) ?? { revision: -1, hash: '' }
    const revision = last.revision + 1
    const [id, at, dataJson] = [randomUUID(), (this.now += 1_000), JSON.stringify(data)]
    const hash = chainHash(last.hash, { stream, revision, id, type, dataJson, actor, at })
    this.#streams.set(stream, { revision, hash })
    const metadata = { actor, at, correlationId: id, causationId: null, schemaVersion: schemaVersions[type], hash }
    return new ProposedEvent({ id, type, stream, revision, data, dataJson, metadata })
  }

  /** What `userId` did in a conversation. */
  did(conversationId: string, userId: string, ...events: ConversationEvent[]): Promise<number> {
    return this.append(conversationStream(conversationId), { userId }, ...events)
  }

  created(conversationId: string, memberIds: readonly string[], more: { type?: ConversationType; name?: string } = {}): Promise<number> {
    const { type = 'group', name } = more
    const roleOf = (i: number): Role => (type === 'group' && i === 0 ? 'owner' : 'member')
    const members = memberIds.map((userId, i) => ({ userId, role: roleOf(i) }))
    return this.did(conversationId, memberIds[0]!, {
      type: 'ConversationCreated',
      data: { type, joinPolicy: 'open', ...(name === undefined ? {} : { name }), members },
    })
  }

  sent(
    conversationId: string,
    senderId: string,
    content: Content | string,
    more: { mentions?: string[]; replyToSeq?: number; clientMessageId?: string } = {},
  ): Promise<number> {
    return this.did(conversationId, senderId, this.message(conversationId, content, more))
  }

  message(
    conversationId: string,
    content: Content | string,
    more: { mentions?: string[]; replyToSeq?: number; clientMessageId?: string } = {},
  ): ConversationEvent {
    const ordinal = (this.#ordinals.get(conversationId) ?? 0) + 1
    this.#ordinals.set(conversationId, ordinal)
    const { clientMessageId = `m${ordinal}`, ...rest } = more
    return {
      type: 'MessageSent',
      data: { clientMessageId, ordinal, content: typeof content === 'string' ? text(content) : content, ...rest },
    }
  }

  async joined(conversationId: string, userId: string): Promise<number> {
    const joinedSeq = await this.did(conversationId, userId, { type: 'MemberJoined', data: { userId, role: 'member' } })
    this.#joinedSeqs.set(`${conversationId} ${userId}`, joinedSeq)
    return joinedSeq
  }

  left(conversationId: string, userId: string): Promise<number> {
    return this.did(conversationId, userId, { type: 'MemberLeft', data: { userId } })
  }

  /** As the member that the user is, or as the one that it was when it joined at `joinedSeq`. */
  read(conversationId: string, userId: string, seq: number, ordinal: number, joinedSeq?: number): Promise<number> {
    const data = { userId, seq, ordinal, ...this.#membership(conversationId, userId, joinedSeq) }
    return this.append(receiptsStream(conversationId), { userId }, { type: 'ReadUpTo', data })
  }

  delivered(conversationId: string, userId: string, seq: number, joinedSeq?: number): Promise<number> {
    const data = { userId, seq, ...this.#membership(conversationId, userId, joinedSeq) }
    return this.append(receiptsStream(conversationId), { userId }, { type: 'DeliveredUpTo', data })
  }

  #membership(conversationId: string, userId: string, joinedSeq = this.#joinedSeqs.get(`${conversationId} ${userId}`) ?? 0) {
    return joinedSeq === 0 ? {} : { joinedSeq }
  }

  /** What a user did with itself. */
  self(userId: string, ...events: AnyEvent[]): Promise<number> {
    return this.append(userStream(userId), { userId }, ...events)
  }

  marked(userId: string, conversationId: string, marks: { pinned?: boolean; muted?: boolean; hidden?: boolean }): Promise<number> {
    const ordinal = this.#ordinals.get(conversationId) ?? 0
    return this.self(userId, { type: 'InboxMarked', data: { conversationId, ...marks, ordinal } })
  }
}
