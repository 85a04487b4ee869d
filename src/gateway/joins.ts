import type { ConversationState } from '../domain/conversation/state.js'
import type { RecordedEvent } from '../domain/event-store.js'
import { type ConversationEvent, factOf } from '../domain/events.js'
import { idOfStream } from '../domain/ids.js'
import type { Audience } from './audience.js'

interface Learned {
  /** Undefined of a conversation that begins with the join. */
  state: ConversationState | undefined
  isMuted: boolean
}

/** The joins of a user whose tables lag behind the feed, with what is needed to fold them: it is looked up, each once. */
export class Joins {
  readonly #userId: string
  readonly #loadState: (conversationId: string) => Promise<ConversationState>
  readonly #isMuted: (userId: string, conversationId: string) => Promise<boolean>
  readonly #learned = new Map<RecordedEvent, Learned>()

  constructor(
    userId: string,
    loadState: (conversationId: string) => Promise<ConversationState>,
    isMuted: (userId: string, conversationId: string) => Promise<boolean>,
  ) {
    this.#userId = userId
    this.#loadState = loadState
    this.#isMuted = isMuted
  }

  has(event: RecordedEvent): boolean {
    return this.#learned.has(event)
  }

  /** Looks up the joins among these events that are new. True if there were any: meanwhile there may be more. */
  async learn(events: readonly RecordedEvent[]): Promise<boolean> {
    const fresh = events.filter((event) => !this.#learned.has(event) && isJoinOf(event, this.#userId))
    await Promise.all(fresh.map((event) => this.#learn(event)))
    return fresh.length > 0
  }

  async #learn(event: RecordedEvent): Promise<void> {
    const conversationId = idOfStream(event.stream)
    const [state, isMuted] = await Promise.all([
      event.type === 'ConversationCreated' ? undefined : this.#loadState(conversationId),
      this.#isMuted(this.#userId, conversationId),
    ])
    this.#learned.set(event, { state, isMuted })
  }

  /** Where unread starts, and whether the user had muted the conversation before. */
  membershipOf(event: RecordedEvent): { joinedOrdinal: number; isMuted: boolean } {
    const { state, isMuted } = this.#learned.get(event)!
    const member = state?.members.get(this.#userId)
    // Of a membership that has ended meanwhile the rest is among the events, too.
    return { joinedOrdinal: member?.joinedSeq === event.revision ? member.joinedOrdinal : 0, isMuted }
  }

  /** The conversation as it was just before the join; `since`: all events that a state may hold beyond it. */
  conversationOf(event: RecordedEvent, since: readonly RecordedEvent[]): ConstructorParameters<typeof Audience>[0] {
    const fact = factOf<ConversationEvent>(event)
    const known = { conversationId: idOfStream(event.stream), head: event.revision }
    if (fact.type === 'ConversationCreated')
      return { ...known, type: fact.data.type, lastOrdinal: 0, memberCount: fact.data.members.length, lastPosition: event.position }
    const { state } = this.#learned.get(event)!
    const later = since.filter(({ stream, revision }) => stream === event.stream && revision >= event.revision && revision <= state!.head)
    const added = later.reduce((sum, { type }) => sum + membersAddedBy(type), 0)
    return {
      ...known,
      type: state!.type,
      lastOrdinal: this.membershipOf(event).joinedOrdinal,
      memberCount: state!.members.size - added,
      // Before the join, which is then counted.
      lastPosition: '',
    }
  }
}

const membersAddedBy = (type: string) => (type === 'MemberJoined' ? 1 : type === 'MemberLeft' || type === 'MemberRemoved' ? -1 : 0)

function isJoinOf(event: RecordedEvent, userId: string): boolean {
  if (event.type !== 'ConversationCreated' && event.type !== 'MemberJoined') return false
  const fact = factOf<ConversationEvent>(event)
  if (fact.type === 'MemberJoined') return fact.data.userId === userId
  return fact.type === 'ConversationCreated' && fact.data.members.some((member) => member.userId === userId)
}
