import type { Position, RecordedEvent } from '../../src/domain/event-store.js'
import { CONVERSATION_PREFIX, conversationStream, idOfStream } from '../../src/domain/ids.js'
import type { InMemoryLog } from '../support/in-memory-event-store.js'

/** A member's coming or going. */
interface MembershipChange {
  seq: number
  isIn: boolean
  /** When it was committed. */
  at: number
}

interface ConversationTruth {
  conversationId: string
  /** By user, in the order of the log. */
  memberships: Map<string, MembershipChange[]>
  messages: RecordedEvent[]
  /** By message, in the order of the log. */
  edits: Map<number, RecordedEvent[]>
  /** By message, the seq of its recall. */
  recalls: Map<number, number>
  /** By seq. */
  places: number[]
  committedAt: number[]
}

/** What is true by the log alone, told in the plainest way: what the program shows is held to it. */
export class Truth {
  readonly #log: InMemoryLog
  readonly #now: () => number
  readonly #conversations = new Map<string, ConversationTruth>()
  readonly #placeOf = new Map<Position, number>()
  /** Messages by sender and client id: more than one seq is a fault. */
  readonly sent = new Map<string, number[]>()
  #seen = 0

  constructor(log: InMemoryLog, now: () => number) {
    this.#log = log
    this.#now = now
  }

  /** Called after each append, so that times are true. */
  sync(): void {
    const { events } = this.#log
    const at = this.#now()
    while (this.#seen < events.length) {
      const event = events[this.#seen]!
      this.#seen += 1
      this.#placeOf.set(event.position, this.#seen)
      if (event.stream.startsWith(CONVERSATION_PREFIX)) this.#take(event, this.#seen, at)
    }
  }

  get conversationIds(): string[] {
    return [...this.#conversations.keys()]
  }

  eventsOf(conversationId: string): readonly RecordedEvent[] {
    return this.#log.streams.get(conversationStream(conversationId)) ?? []
  }

  eventAt(conversationId: string, seq: number): RecordedEvent | undefined {
    return this.eventsOf(conversationId)[seq]
  }

  /** The messages that were sent, in the order of the log. */
  messagesOf(conversationId: string): readonly RecordedEvent[] {
    return this.#conversations.get(conversationId)?.messages ?? []
  }

  /** The edits of a message, in the order of the log. */
  editsOf(conversationId: string, messageSeq: number): readonly RecordedEvent[] {
    return this.#conversations.get(conversationId)?.edits.get(messageSeq) ?? []
  }

  headOf(conversationId: string): number {
    return this.eventsOf(conversationId).length - 1
  }

  get place(): number {
    return this.#seen
  }

  /** How many events there are up to a position; 0 where it is before the first. */
  placeOf(position: Position): number {
    return this.#placeOf.get(position) ?? (Number.parseInt(position, 10) || 0)
  }

  placeOfEvent(conversationId: string, seq: number): number {
    return this.#conversations.get(conversationId)?.places[seq] ?? Infinity
  }

  committedAt(conversationId: string, seq: number): number {
    return this.#conversations.get(conversationId)?.committedAt[seq] ?? Infinity
  }

  /** The last seq at or before a place in the log, -1 where none. */
  seqAt(conversationId: string, place: number): number {
    const places = this.#conversations.get(conversationId)?.places ?? []
    let [low, high] = [0, places.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (places[middle]! <= place) low = middle + 1
      else high = middle
    }
    return low - 1
  }

  recallOf(conversationId: string, messageSeq: number): number | undefined {
    return this.#conversations.get(conversationId)?.recalls.get(messageSeq)
  }

  recallsOf(conversationId: string): ReadonlyMap<number, number> {
    return this.#conversations.get(conversationId)?.recalls ?? new Map()
  }

  isMember(conversationId: string, userId: string): boolean {
    return this.#changes(conversationId, userId).at(-1)?.isIn ?? false
  }

  /** Whether the user was a member as of this seq. */
  wasMemberAt(conversationId: string, userId: string, seq: number): boolean {
    return this.#changes(conversationId, userId).findLast((change) => change.seq <= seq)?.isIn ?? false
  }

  /** The user's last coming or going at or below a seq. */
  changeBefore(conversationId: string, userId: string, seq: number): MembershipChange | undefined {
    return this.#changes(conversationId, userId).findLast((change) => change.seq <= seq)
  }

  lastDeparture(conversationId: string, userId: string): number | undefined {
    return this.#changes(conversationId, userId).findLast(({ isIn }) => !isIn)?.seq
  }

  /** How far the user may see, as things are now: without end for a member, else its own departure, else nothing. */
  horizonOf(conversationId: string, userId: string): number {
    const last = this.#changes(conversationId, userId).at(-1)
    return last === undefined ? -1 : last.isIn ? Infinity : last.seq
  }

  /** Whether there was a moment in [from, to] at which the user was no member. */
  wasOutside(conversationId: string, userId: string, from: number, to: number): boolean {
    let isIn = false
    let since = -Infinity
    for (const change of this.#changes(conversationId, userId)) {
      if (!isIn && change.at >= from && since <= to) return true
      isIn = change.isIn
      since = change.at
    }
    return !isIn && since <= to
  }

  conversationsOf(userId: string): string[] {
    return this.conversationIds.filter((id) => this.isMember(id, userId))
  }

  membersOf(conversationId: string): string[] {
    const memberships = this.#conversations.get(conversationId)?.memberships ?? new Map<string, MembershipChange[]>()
    return [...memberships].filter(([, changes]) => changes.at(-1)?.isIn).map(([userId]) => userId)
  }

  #changes(conversationId: string, userId: string): readonly MembershipChange[] {
    return this.#conversations.get(conversationId)?.memberships.get(userId) ?? []
  }

  #take(event: RecordedEvent, place: number, at: number): void {
    const conversationId = idOfStream(event.stream)
    let truth = this.#conversations.get(conversationId)
    if (!truth) {
      truth = { conversationId, memberships: new Map(), messages: [], edits: new Map(), recalls: new Map(), places: [], committedAt: [] }
      this.#conversations.set(conversationId, truth)
    }
    truth.places.push(place)
    truth.committedAt.push(at)
    const data = event.data as { userId: string; members: { userId: string }[]; messageSeq: number; clientMessageId: string }
    const seq = event.revision
    const move = (userId: string, isIn: boolean) => {
      const changes = truth.memberships.get(userId)
      if (changes) changes.push({ seq, isIn, at })
      else truth.memberships.set(userId, [{ seq, isIn, at }])
    }
    switch (event.type) {
      case 'ConversationCreated':
        for (const { userId } of data.members) move(userId, true)
        return
      case 'MemberJoined':
        return move(data.userId, true)
      case 'MemberLeft':
      case 'MemberRemoved':
        return move(data.userId, false)
      case 'MessageRecalled':
        truth.recalls.set(data.messageSeq, seq)
        return
      case 'MessageEdited': {
        const edits = truth.edits.get(data.messageSeq)
        if (edits) edits.push(event)
        else truth.edits.set(data.messageSeq, [event])
        return
      }
      case 'MessageSent': {
        truth.messages.push(event)
        const key = `${conversationId} ${event.metadata.actor.userId} ${data.clientMessageId}`
        const seqs = this.sent.get(key)
        if (seqs) seqs.push(seq)
        else this.sent.set(key, [seq])
        return
      }
      default:
    }
  }
}
