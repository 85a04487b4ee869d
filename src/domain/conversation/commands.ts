import type { Content, ConversationType, JoinPolicy, JsonObject, Role } from '../events.js'

/** What somebody wants of one conversation. Who wants it stands beside it, in the request. */
export type ConversationCommand =
  | {
      type: 'CreateConversation'
      conversationType: ConversationType
      memberIds: readonly string[]
      name?: string
      joinPolicy?: JoinPolicy
      custom?: JsonObject
    }
  | { type: 'UpdateConversation'; name?: string | null; joinPolicy?: JoinPolicy; frozen?: boolean; custom?: JsonObject | null }
  | { type: 'AddMembers'; userIds: readonly string[] }
  | { type: 'ChangeRole'; userId: string; role: Role }
  | { type: 'RemoveMember'; userId: string }
  | { type: 'Join' }
  | { type: 'Leave' }
  | { type: 'SendMessage'; clientMessageId: string; content: Content; replyToSeq?: number; mentions?: readonly string[] }
  | MessageCommand

/** A change to one message. */
export type MessageCommand =
  | { type: 'EditMessage'; seq: number; content: Content }
  | { type: 'RecallMessage'; seq: number }
  | { type: 'AddReaction'; seq: number; emoji: string }
  | { type: 'RemoveReaction'; seq: number; emoji: string }
  | { type: 'PinMessage'; seq: number }
  | { type: 'UnpinMessage'; seq: number }

/** A message as the decision about it needs it. */
export interface MessageFacts {
  seq: number
  senderId: string
  content: Content | null
  /** Of an edit since `content` was looked up; it counts in place of that. */
  contentHash?: string
  recalled: boolean
  pinned: boolean
  /** emoji → how many gave it. */
  reactions: ReadonlyMap<string, number>
  /** Whether the one who asks has given the emoji that is asked about. */
  reacted: boolean
}

/** What a decision needs beyond the state; looked up before it. */
export interface ConversationContext {
  /** One side of this direct conversation has blocked the other. */
  blocked: boolean
  membersMax: number
  /** What was looked up holds what happened up to this revision; the window must reach back to it. Absent where nothing was looked up. */
  asOf?: number
  /** Nothing was looked up, because this user was no member then; once it is one, all is looked up again. */
  strangerId?: string
  /** The log had no event of this seq when it was looked up; once the conversation has come that far, all is looked up again. */
  missingSeq?: number
  /** Of a MessageCommand: the message as of `asOf`, or undefined where the seq is none. */
  message?: MessageFacts | undefined
  /** Of a SendMessage with replyToSeq. */
  replyToIsMessage?: boolean
  /** Of a SendMessage: the seq of the same message where it is older than the window. */
  sentBefore?: number | undefined
}
