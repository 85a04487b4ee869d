/**
 * Every event type and its fields: a contract, versioned and catalogued in docs/events.md.
 * A field is never renamed or given another meaning; a new shape is a new schemaVersion with an upcaster below.
 */
import type { RecordedEvent } from './event-store.js'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonObject = { [key: string]: Json }

export type Role = 'owner' | 'admin' | 'member'
export type JoinPolicy = 'invite' | 'open'
export type ConversationType = 'direct' | 'group'

export type Content =
  | { type: 'text'; text: string }
  | {
      type: 'image' | 'voice' | 'file'
      url: string
      mimeType: string
      bytes: number
      width?: number
      height?: number
      durationMs?: number
      name?: string
    }
  | { type: 'custom'; data: JsonObject }

export type ConversationEvent =
  | {
      type: 'ConversationCreated'
      data: {
        type: ConversationType
        name?: string
        joinPolicy: JoinPolicy
        custom?: JsonObject
        members: { userId: string; role: Role }[]
      }
    }
  | { type: 'ConversationUpdated'; data: { name?: string | null; joinPolicy?: JoinPolicy; custom?: JsonObject } }
  | { type: 'ConversationFrozen'; data: Record<never, never> }
  | { type: 'ConversationUnfrozen'; data: Record<never, never> }
  | { type: 'MemberJoined'; data: { userId: string; role: Role } }
  | { type: 'MemberLeft'; data: { userId: string } }
  | { type: 'MemberRemoved'; data: { userId: string } }
  | { type: 'MemberRoleChanged'; data: { userId: string; role: Role } }
  | { type: 'MessageSent'; data: MessageSent }
  | { type: 'MessageEdited'; data: { messageSeq: number; content: Content } }
  | { type: 'MessageRecalled'; data: { messageSeq: number } }
  | { type: 'ReactionAdded'; data: { messageSeq: number; emoji: string } }
  | { type: 'ReactionRemoved'; data: { messageSeq: number; emoji: string } }
  | { type: 'MessagePinned'; data: { messageSeq: number } }
  | { type: 'MessageUnpinned'; data: { messageSeq: number } }

export interface MessageSent {
  clientMessageId: string
  /** 1, 2, 3 … over the messages of the conversation: unread is a subtraction. */
  ordinal: number
  content: Content
  replyToSeq?: number
  mentions?: string[]
}

/** `joinedSeq`: which membership it is of, by the seq at which the user joined; absent: a member since the creation. */
export type ReceiptEvent =
  /** `ordinal`: that of the last message at or below `seq`, so that unread needs no look-up. */
  | { type: 'ReadUpTo'; data: { userId: string; seq: number; ordinal: number; joinedSeq?: number } }
  | { type: 'DeliveredUpTo'; data: { userId: string; seq: number; joinedSeq?: number } }

export type UserEvent =
  | { type: 'UserRegistered'; data: Profile }
  | { type: 'ProfileChanged'; data: Profile }
  | { type: 'ContactAdded'; data: { userId: string } }
  | { type: 'ContactRemoved'; data: { userId: string } }
  | { type: 'UserBlocked'; data: { userId: string } }
  | { type: 'UserUnblocked'; data: { userId: string } }
  /** `replaced`: the device that left the user's list for it; its tokens stay valid. */
  | { type: 'DeviceSeen'; data: { deviceId: string; replaced?: string } }
  /** Its tokens are refused that were issued up to `upTo` (ms); absent: up to the event's `at`. */
  | { type: 'DeviceRevoked'; data: { deviceId: string; upTo?: number } }
  /** The user's own marks on a conversation; `ordinal` is the conversation's last when it was hidden: a later message shows it again. */
  | { type: 'InboxMarked'; data: { conversationId: string; pinned?: boolean; muted?: boolean; hidden?: boolean; ordinal: number } }

export interface Profile {
  name: string | null
  avatarUrl: string | null
  custom: JsonObject
}

export type AnyEvent = ConversationEvent | ReceiptEvent | UserEvent
export type EventType = AnyEvent['type']

/** What an event says, when and by whom: what folds and projections see. */
export type Fact<Event extends AnyEvent> = Event & Pick<RecordedEvent, 'stream' | 'revision' | 'metadata'>

/** A fact that the log holds. */
export type RecordedFact<Event extends AnyEvent> = Event &
  Pick<RecordedEvent, 'id' | 'stream' | 'revision' | 'position' | 'metadata' | 'dataJson'>

/** The version that new events of each type are written with. */
export const schemaVersions: Record<EventType, number> = {
  ConversationCreated: 1,
  ConversationUpdated: 1,
  ConversationFrozen: 1,
  ConversationUnfrozen: 1,
  MemberJoined: 1,
  MemberLeft: 1,
  MemberRemoved: 1,
  MemberRoleChanged: 1,
  MessageSent: 1,
  MessageEdited: 1,
  MessageRecalled: 1,
  ReactionAdded: 1,
  ReactionRemoved: 1,
  MessagePinned: 1,
  MessageUnpinned: 1,
  ReadUpTo: 1,
  DeliveredUpTo: 1,
  UserRegistered: 1,
  ProfileChanged: 1,
  ContactAdded: 1,
  ContactRemoved: 1,
  UserBlocked: 1,
  UserUnblocked: 1,
  DeviceSeen: 1,
  DeviceRevoked: 1,
  InboxMarked: 1,
}

/** upcasters[type][n] turns data of version n + 1 into that of version n + 2. None is needed yet. */
export type Upcasters = Partial<Record<EventType, readonly ((data: unknown) => unknown)[]>>
const upcasters: Upcasters = {}

/** A recorded event as today's code knows it: older versions are lifted step by step, what is current is handed on as it is. */
export function factOf<Event extends AnyEvent>(event: RecordedEvent, steps: Upcasters = upcasters): RecordedFact<Event> {
  const lifts = steps[event.type as EventType]
  const version = lifts === undefined ? 1 : event.metadata.schemaVersion
  if (lifts === undefined || version > lifts.length) return event as unknown as RecordedFact<Event>
  const data = lifts.slice(version - 1).reduce((lifted, lift) => lift(lifted), event.data)
  const { id, type, stream, revision, position, metadata } = event
  return { id, type, stream, revision, position, metadata, data, dataJson: JSON.stringify(data) } as unknown as RecordedFact<Event>
}
