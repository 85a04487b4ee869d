import type { Position } from '../domain/event-store.js'
import type { ConversationType } from '../domain/events.js'
import type { Recalled } from '../domain/recalls-ahead.js'
import type { Connection } from './connection.js'

/** Beyond that a device that comes back sees by the seq alone that something is missing. */
const LEFT_MAX = 1_000

/** A user with at least one connection here. */
export interface LocalUser {
  readonly userId: string
  readonly connections: Set<Connection>
  readonly conversations: Map<string, LocalMember>
  /** Conversations that its devices saw it leave, and the seq of that. */
  readonly left: Map<string, number>
  /** How often the feed has told that it left a conversation since it is here. */
  departures: number
  /** Unread over all conversations that are not muted, as pushed last. */
  totalUnread: number
}

/** Notes what its devices saw it leave; of too many the earliest is forgotten. */
export function rememberLeft({ left }: LocalUser, conversationId: string, seq: number): void {
  left.set(conversationId, seq)
  if (left.size > LEFT_MAX) left.delete(left.keys().next().value!)
}

/** A local user's membership of one conversation, with what its unread count needs. */
export interface LocalMember {
  readonly user: LocalUser
  readonly audience: Audience
  joinedSeq: number
  joinedPosition: Position
  readOrdinal: number
  /** Of the unread messages that mention the user. */
  mentionOrdinals: number[]
  muted: boolean
  /** As counted in `totalUnread` and pushed last. */
  pushedUnread: number
  pushedMentions: number
}

/** Whose own membership facts change: they get them as they are, wherever they look. Joining begins a run, leaving ends one. */
export interface Subjects {
  joined: string | undefined
  left: string | undefined
}

/** Facts of a conversation waiting to be merged into one frame. */
export interface Merge {
  events: string[]
  characters: number
  firstSeq: number
  lastSeq: number
  subjects: Subjects
  /** The messages that these facts recall. */
  recalls: Recalled | undefined
  /** The last position before the first of them: a device may not resume from beyond it yet. */
  floor: Position
  timer: NodeJS.Timeout
}

/** The members of a conversation that are connected here, and what this node knows of the conversation. */
export class Audience {
  readonly conversationId: string
  readonly type: ConversationType
  readonly members = new Map<string, LocalMember>()
  head: number
  lastOrdinal: number
  lastPosition: Position
  memberCount: number
  /** `memberCount` is not known yet. */
  isGuessed: boolean
  merge: Merge | undefined
  lastFrameAt = -Infinity
  /** When unread counts were pushed last. */
  lastUnreadAt = -Infinity
  #rateSecond = 0
  #rateCount = 0
  #ratePrevious = 0

  constructor(known: {
    conversationId: string
    type: ConversationType
    head: number
    lastOrdinal: number
    lastPosition: Position
    memberCount: number
  }) {
    this.conversationId = known.conversationId
    this.type = known.type
    this.head = known.head
    this.lastOrdinal = known.lastOrdinal
    this.lastPosition = known.lastPosition
    this.memberCount = known.memberCount
    this.isGuessed = known.lastOrdinal === UNKNOWN_ORDINAL
  }

  /** Counts messages for `messagesPerSecond`. */
  countMessages(count: number, now: number): void {
    const second = Math.floor(now / 1_000)
    if (second !== this.#rateSecond) {
      this.#ratePrevious = second === this.#rateSecond + 1 ? this.#rateCount : 0
      this.#rateSecond = second
      this.#rateCount = 0
    }
    this.#rateCount += count
  }

  /** The higher of this second's and the last one's count. */
  get messagesPerSecond(): number {
    return Math.max(this.#rateCount, this.#ratePrevious)
  }
}

/** Of a conversation whose state has not come yet. Ordinals are dense: the next message settles it. */
export const UNKNOWN_ORDINAL = -1

/** How far it was when those joined of whom it was not known. */
export function settleOrdinal(audience: Audience, ordinal: number): void {
  audience.lastOrdinal = ordinal
  for (const member of audience.members.values()) if (member.readOrdinal === UNKNOWN_ORDINAL) member.readOrdinal = ordinal
}

export const unreadOf = ({ audience, readOrdinal }: LocalMember): number => Math.max(0, audience.lastOrdinal - readOrdinal)
