import type { Position, RecordedEvent } from '../../src/domain/event-store.js'
import { type AnyEvent, type Content, type ConversationType, type Fact, type Role, factOf } from '../../src/domain/events.js'
import { idOfStream } from '../../src/domain/ids.js'

export interface MemberRow {
  userId: string
  role: Role
  rank: number
  joinedSeq: number
  joinedAt: number
  joinedOrdinal: number
  joinedPosition: Position
}

export interface MessageRow {
  seq: number
  ordinal: number
  senderId: string
  clientMessageId: string
  content: Content | null
  replyToSeq: number | null
  mentions: string[]
  sentAt: number
  editedAt: number | null
  recalledAt: number | null
  recalledBy: string | null
  pinned: boolean
  /** emoji → who gave it, in their order. */
  reactions: Map<string, Set<string>>
}

export interface CursorRow {
  readSeq: number | null
  readAt: number | null
  deliveredSeq: number | null
  deliveredAt: number | null
  position: Position | null
}

export interface UnreadRow {
  readSeq: number | null
  readOrdinal: number
  mentions: number[]
}

export interface ConversationRow {
  conversationId: string
  type: ConversationType
  name: string | null
  head: number
  lastOrdinal: number
  lastPosition: Position
  lastMessageSeq: number | null
  members: Map<string, MemberRow>
  departures: Map<string, { seq: number; position: Position }>
  messages: Map<number, MessageRow>
  receipts: Map<string, CursorRow>
  unread: Map<string, UnreadRow>
}

export interface MarksRow {
  pinned: boolean
  muted: boolean
  hiddenOrdinal: number | null
}

const unmoved = (): CursorRow => ({ readSeq: null, readAt: null, deliveredSeq: null, deliveredAt: null, position: null })

/** The read models' tables as of a place in the log, folded event by event: all nodes see the same, and all of it lags. */
export class Tables {
  readonly conversations = new Map<string, ConversationRow>()
  readonly contacts = new Map<string, Set<string>>()
  readonly blocks = new Map<string, Set<string>>()
  /** By user and conversation. */
  readonly marks = new Map<string, Map<string, MarksRow>>()
  position: Position = ''
  /** How many events of the log are in. */
  applied = 0

  apply(event: RecordedEvent): void {
    this.position = event.position
    this.applied += 1
    const fact = factOf<AnyEvent>(event)
    const id = idOfStream(event.stream)
    if (fact.type === 'ConversationCreated') this.#create(id, event, fact)
    else if (fact.stream.startsWith('user-')) this.#foldUser(id, fact)
    else this.#fold(this.conversations.get(id)!, event, fact)
  }

  #create(id: string, event: RecordedEvent, { data, metadata, revision }: Fact<Extract<AnyEvent, { type: 'ConversationCreated' }>>): void {
    const row: ConversationRow = {
      conversationId: id,
      type: data.type,
      name: data.name ?? null,
      head: revision,
      lastOrdinal: 0,
      lastPosition: event.position,
      lastMessageSeq: null,
      members: new Map(),
      departures: new Map(),
      messages: new Map(),
      receipts: new Map(),
      unread: new Map(),
    }
    data.members.forEach(({ userId, role }, rank) => join(row, userId, role, rank, event, metadata.at))
    this.conversations.set(id, row)
  }

  #fold(row: ConversationRow, event: RecordedEvent, fact: Fact<AnyEvent>): void {
    const { revision: seq } = event
    const { at, actor } = fact.metadata
    const actorId = actor.userId ?? ''
    if (!fact.stream.startsWith('receipts-')) {
      row.head = seq
      row.lastPosition = event.position
    }
    switch (fact.type) {
      case 'ConversationUpdated':
        if (fact.data.name !== undefined) row.name = fact.data.name
        return
      case 'MemberJoined':
        return join(row, fact.data.userId, fact.data.role, 0, event, at)
      case 'MemberLeft':
      case 'MemberRemoved': {
        const { userId } = fact.data
        row.members.delete(userId)
        row.receipts.delete(userId)
        row.unread.delete(userId)
        row.departures.set(userId, { seq, position: event.position })
        return
      }
      case 'MemberRoleChanged': {
        const member = row.members.get(fact.data.userId)
        if (member) member.role = fact.data.role
        return
      }
      case 'MessageSent': {
        const { ordinal, content, clientMessageId, replyToSeq = null, mentions = [] } = fact.data
        row.messages.set(seq, {
          seq,
          ordinal,
          senderId: actorId,
          clientMessageId,
          content,
          replyToSeq,
          mentions,
          sentAt: at,
          editedAt: null,
          recalledAt: null,
          recalledBy: null,
          pinned: false,
          reactions: new Map(),
        })
        row.lastOrdinal = ordinal
        row.lastMessageSeq = seq
        moveRead(row, actorId, seq, at)
        countRead(row, actorId, seq, ordinal)
        for (const userId of mentions) if (userId !== actorId) row.unread.get(userId)?.mentions.push(ordinal)
        return
      }
      case 'MessageEdited': {
        const message = row.messages.get(fact.data.messageSeq)!
        if (message.recalledAt === null) message.content = fact.data.content
        message.editedAt = at
        return
      }
      case 'MessageRecalled':
        Object.assign(row.messages.get(fact.data.messageSeq)!, { content: null, recalledAt: at, recalledBy: actorId })
        return
      case 'MessagePinned':
      case 'MessageUnpinned':
        row.messages.get(fact.data.messageSeq)!.pinned = fact.type === 'MessagePinned'
        return
      case 'ReactionAdded': {
        const { reactions } = row.messages.get(fact.data.messageSeq)!
        reactions.set(fact.data.emoji, (reactions.get(fact.data.emoji) ?? new Set()).add(actorId))
        return
      }
      case 'ReactionRemoved':
        row.messages.get(fact.data.messageSeq)!.reactions.get(fact.data.emoji)?.delete(actorId)
        return
      case 'ReadUpTo':
        moveRead(row, fact.data.userId, fact.data.seq, at).position = event.position
        return countRead(row, fact.data.userId, fact.data.seq, fact.data.ordinal)
      case 'DeliveredUpTo': {
        const cursor = cursorOf(row, fact.data.userId)
        cursor.position = event.position
        if (fact.data.seq > (cursor.deliveredSeq ?? -1)) Object.assign(cursor, { deliveredSeq: fact.data.seq, deliveredAt: at })
        return
      }
      default:
    }
  }

  #foldUser(userId: string, fact: Fact<AnyEvent>): void {
    switch (fact.type) {
      case 'ContactAdded':
        return void ensure(this.contacts, userId, () => new Set<string>()).add(fact.data.userId)
      case 'ContactRemoved':
        return void this.contacts.get(userId)?.delete(fact.data.userId)
      case 'UserBlocked':
        return void ensure(this.blocks, userId, () => new Set<string>()).add(fact.data.userId)
      case 'UserUnblocked':
        return void this.blocks.get(userId)?.delete(fact.data.userId)
      case 'InboxMarked': {
        const { conversationId, pinned, muted, hidden, ordinal } = fact.data
        const marks = ensure(
          ensure(this.marks, userId, () => new Map<string, MarksRow>()),
          conversationId,
          () => ({ pinned: false, muted: false, hiddenOrdinal: null }),
        )
        if (pinned !== undefined) marks.pinned = pinned
        if (muted !== undefined) marks.muted = muted
        if (hidden !== undefined) marks.hiddenOrdinal = hidden ? ordinal : null
        return
      }
      default:
    }
  }

  marksOf(userId: string, conversationId: string): MarksRow {
    return this.marks.get(userId)?.get(conversationId) ?? { pinned: false, muted: false, hiddenOrdinal: null }
  }

  /** The user's conversations. */
  ofUser(userId: string): ConversationRow[] {
    return [...this.conversations.values()].filter(({ members }) => members.has(userId))
  }
}

function join(row: ConversationRow, userId: string, role: Role, rank: number, event: RecordedEvent, at: number): void {
  const { revision, position } = event
  const member: MemberRow = {
    userId,
    role,
    rank,
    joinedSeq: revision,
    joinedAt: at,
    joinedOrdinal: row.lastOrdinal,
    joinedPosition: position,
  }
  row.members.delete(userId)
  row.members.set(userId, member)
  row.receipts.delete(userId)
  row.unread.set(userId, { readSeq: null, readOrdinal: row.lastOrdinal, mentions: [] })
}

const cursorOf = (row: ConversationRow, userId: string) => ensure(row.receipts, userId, unmoved)

function moveRead(row: ConversationRow, userId: string, seq: number, at: number): CursorRow {
  const cursor = cursorOf(row, userId)
  if (seq > (cursor.readSeq ?? -1)) Object.assign(cursor, { readSeq: seq, readAt: at })
  return cursor
}

function countRead(row: ConversationRow, userId: string, seq: number, ordinal: number): void {
  const unread = row.unread.get(userId)
  if (!unread || seq <= (unread.readSeq ?? -1)) return
  unread.readSeq = seq
  unread.readOrdinal = Math.max(unread.readOrdinal, ordinal)
  unread.mentions = unread.mentions.filter((mention) => mention > unread.readOrdinal)
}

export function ensure<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  let value = map.get(key)
  if (value === undefined) map.set(key, (value = make()))
  return value
}
