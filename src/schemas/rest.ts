/** What REST alone has: parameters and answers. A schema with a title is a component of the OpenAPI document. */
import { type Static, type TSchema, Type } from 'typebox'
import {
  ConversationId,
  Content,
  Custom,
  DeviceId,
  Emoji,
  JoinPolicy,
  PAGE_DEFAULT,
  PAGE_MAX,
  Role,
  Seq,
  UserId,
  closedObject,
} from './common.js'

/** `null` where it is not set. */
export const nullable = <Schema extends TSchema>(schema: Schema) =>
  Type.Unsafe<Static<Schema> | null>({ ...schema, type: [(schema as { type?: string }).type, 'null'] })

/** As `nullable`, and usually null. */
const unset = <Schema extends TSchema>(schema: Schema) => Type.Unsafe<Static<Schema> | null>({ ...nullable(schema), examples: [null] })

const Count = Type.Integer({ minimum: 0, examples: [3] })
const Time = Type.String({ format: 'date-time', description: 'ISO 8601, UTC, milliseconds', examples: ['2026-05-04T09:30:00.125Z'] })
export const Position = Type.String({
  minLength: 1,
  maxLength: 200,
  description: 'A place in the whole log, opaque; give it to a read as `minPosition`',
  examples: ['0000000000004711.Ab3dE_9x'],
})
const Unchanged = Type.Optional(
  Type.Boolean({ description: 'Only where nothing changed: it was so already, and nothing was written', examples: [true] }),
)
const Text = (description: string, example: string) => Type.String({ description, examples: [example] })

// --- parameters ---

export const InConversation = closedObject({ conversationId: ConversationId })
export const OfMember = closedObject({ conversationId: ConversationId, userId: UserId })
export const OfMessage = closedObject({ conversationId: ConversationId, seq: Seq })
export const OfReaction = closedObject({ conversationId: ConversationId, seq: Seq, emoji: Emoji })
export const OfUser = closedObject({ userId: UserId })
export const OfDevice = closedObject({ deviceId: DeviceId })

const MinPosition = Type.Optional({
  ...Position,
  description:
    'The `position` of a write: waits up to 5 s until the answer shows it, else `unavailable`; one that is not of this log is `invalid_request`',
} as typeof Position)
const Cursor = Type.Optional(
  Type.String({
    maxLength: 1_000,
    description: 'The `nextCursor` of the page before; one of another list or another log is `invalid_request`',
    examples: ['WyJjb250YWN0cyIsImFsaWNlIiwiMDAwMDAwMDAwMDAwNDcxMS5BYjNkRV85eCIsImJvYiJd'],
  }),
)
export const Limit = Type.Optional(
  Type.Integer({ minimum: 1, maximum: PAGE_MAX, default: PAGE_DEFAULT, description: 'How many at most', examples: [50] }),
)

export const ReadQuery = closedObject({ minPosition: MinPosition })
export const NoQuery = closedObject({})
export const PageQuery = closedObject({ cursor: Cursor, limit: Limit, minPosition: MinPosition })
export const InboxQuery = closedObject({
  hidden: Type.Optional(Type.Boolean({ description: 'The hidden conversations, and only they', examples: [false] })),
  cursor: Cursor,
  limit: Limit,
  minPosition: MinPosition,
})
export const ReceiptsQuery = closedObject({
  readBy: Type.Optional({ ...Seq, description: "A message's seq: only those, other than its sender, who have read it" } as typeof Seq),
  cursor: Cursor,
  limit: Limit,
  minPosition: MinPosition,
})
const bound = (description: string) => Type.Optional({ ...Seq, description } as typeof Seq)
export const MessagesQuery = closedObject({
  before: bound('Messages before this seq, exclusive'),
  after: bound('Messages after this seq, exclusive'),
  around: bound('Messages on both sides of this seq, inclusive'),
  pinned: Type.Optional(Type.Boolean({ description: 'The pinned messages, and only they', examples: [true] })),
  limit: Limit,
  minPosition: MinPosition,
})
export const EventsQuery = closedObject({
  after: Type.Optional(
    Type.Integer({
      minimum: -1,
      maximum: Number.MAX_SAFE_INTEGER,
      default: -1,
      description: 'Events after this seq, exclusive; -1: from 0',
      examples: [16],
    }),
  ),
  limit: Limit,
  minPosition: MinPosition,
})

// --- answers ---

const pageOf = (item: TSchema, more: Record<string, TSchema> = {}) =>
  Type.Object({
    items: Type.Array(item),
    nextCursor: unset(Type.String({ description: 'Give it as `cursor` for the next page; null at the end' })),
    ...more,
  })

/** A write's answer: where to wait for it. */
export const Positioned = Type.Object({ position: Position, unchanged: Unchanged }, { title: 'Positioned' })
export const Written = Type.Object(
  {
    seq: { ...Seq, description: 'Of the new fact; the head where nothing changed' } as typeof Seq,
    position: Position,
    unchanged: Unchanged,
  },
  { title: 'Written' },
)
export const MembersAdded = Type.Object(
  {
    seq: Seq,
    position: Position,
    added: Type.Integer({ minimum: 0, description: 'How many were no members before', examples: [2] }),
    unchanged: Unchanged,
  },
  { title: 'MembersAdded' },
)
export const ReadMark = Type.Object(
  { readSeq: Seq, position: Position, seq: Type.Optional(Seq), unchanged: Unchanged },
  { title: 'ReadMark' },
)
export const SentMessage = Type.Object(
  {
    conversationId: ConversationId,
    seq: Seq,
    ordinal: Type.Integer({ minimum: 1, description: 'Messages only, dense from 1', examples: [9] }),
    position: Position,
    sentAt: Time,
    duplicate: Type.Optional(Type.Boolean({ description: 'Only where it was sent before: this is the first result', examples: [true] })),
  },
  { title: 'SentMessage' },
)

export const IssuedToken = Type.Object(
  { token: Text('A JWT, for `Authorization: Bearer`', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln'), expiresAt: Time },
  { title: 'IssuedToken' },
)
const profileFields = {
  userId: UserId,
  name: nullable(Text('Name', 'Alice')),
  avatarUrl: nullable(Text('An http or https URL', 'https://cdn.example/alice.png')),
  custom: Custom,
}
export const Profile = Type.Object(profileFields, { title: 'Profile' })
export const WrittenProfile = Type.Object({ ...profileFields, position: Position, unchanged: Unchanged }, { title: 'WrittenProfile' })

const ConversationType = Type.Unsafe<'direct' | 'group'>(Type.String({ enum: ['direct', 'group'], examples: ['group'] }))
export const Conversation = Type.Object(
  {
    conversationId: ConversationId,
    type: ConversationType,
    name: nullable(Text('Name', 'Crew')),
    joinPolicy: JoinPolicy,
    frozen: Type.Boolean({ description: 'Only owner and admins send, edit, react and pin', examples: [false] }),
    custom: Custom,
    createdAt: Time,
    createdBy: UserId,
    memberCount: Count,
    head: Seq,
    lastOrdinal: Count,
    role: Type.Unsafe<'owner' | 'admin' | 'member' | null>({
      type: ['string', 'null'],
      enum: ['owner', 'admin', 'member', null],
      description: "The caller's; null for an auditor",
      examples: ['owner'],
    }),
    position: Position,
  },
  { title: 'Conversation' },
)

export const Member = Type.Object({ userId: UserId, role: Role, joinedAt: Time }, { title: 'Member' })
export const MemberPage = pageOf(Member)

const Reaction = Type.Object(
  {
    emoji: Text('The emoji', '👍'),
    count: Type.Integer({ minimum: 1, examples: [1] }),
    userIds: Type.Array(UserId, { description: 'The first 20' }),
  },
  { title: 'Reaction' },
)
export const Message = Type.Object(
  {
    conversationId: ConversationId,
    seq: Seq,
    ordinal: Type.Integer({ minimum: 1, examples: [9] }),
    senderId: UserId,
    clientMessageId: Text("The sender's own id", '3f1c-1'),
    content: Type.Unsafe<Static<typeof Content> | null>({ anyOf: [Content, { type: 'null' }], description: 'Null when recalled' }),
    replyToSeq: unset(Seq),
    mentions: Type.Array(UserId, { examples: [['bob']] }),
    sentAt: Time,
    editedAt: unset(Time),
    recalledAt: unset(Time),
    recalledBy: unset(UserId),
    reactions: Type.Array(Reaction),
    pinned: Type.Boolean({ examples: [false] }),
  },
  { title: 'Message' },
)
export const MessageList = Type.Object({
  items: Type.Array(Message, { description: 'Ascending by seq' }),
  head: Seq,
  more: Type.Boolean({
    description: 'There are further messages: older ones for `before` and without a bound, newer ones for `after` and `around`',
    examples: [false],
  }),
})

export const Event = Type.Object(
  {
    conversationId: ConversationId,
    seq: Seq,
    type: Text('One of the event types', 'MessageSent'),
    at: Time,
    actor: Type.Object({
      userId: Type.Optional(UserId),
      app: Type.Optional(Type.String({ description: 'The app that did it for the user' })),
    }),
    data: Type.Object(
      {},
      {
        additionalProperties: true,
        description: 'As the type says; `content` is null where the message was recalled',
        examples: [{ clientMessageId: '3f1c-1', ordinal: 9, content: { type: 'text', text: 'Hello' } }],
      },
    ),
    position: Position,
    head: Seq,
  },
  { title: 'Event' },
)
export const EventList = Type.Object({
  items: Type.Array(Event, { description: 'In seq order' }),
  head: Seq,
  more: Type.Boolean({ description: 'There are newer events: go on after the last item', examples: [false] }),
})

export const Receipt = Type.Object(
  { userId: UserId, readSeq: nullable(Seq), readAt: nullable(Time), deliveredSeq: nullable(Seq), deliveredAt: nullable(Time) },
  { title: 'Receipt' },
)
export const ReceiptPage = pageOf(Receipt)

const LastMessage = Type.Object({
  seq: Seq,
  senderId: UserId,
  sentAt: Time,
  preview: nullable(Text('At most 200 characters; null when recalled', 'Hello')),
})
const InboxLine = Type.Object(
  {
    conversationId: ConversationId,
    type: ConversationType,
    name: nullable(Text('Name', 'Crew')),
    otherUserId: unset(UserId),
    memberCount: Count,
    head: Seq,
    lastMessage: nullable(LastMessage),
    lastActivityAt: Time,
    unread: Count,
    mentions: Count,
    readSeq: nullable(Seq),
    pinned: Type.Boolean({ examples: [false] }),
    muted: Type.Boolean({ examples: [false] }),
    hidden: Type.Boolean({ examples: [false] }),
  },
  { title: 'InboxLine' },
)
export const InboxPage = pageOf(InboxLine, { position: Position })
export const UnreadCounts = Type.Object(
  {
    total: Count,
    mentions: Count,
    conversations: Type.Array(Type.Object({ conversationId: ConversationId, unread: Count, mentions: Count })),
    position: Position,
  },
  { title: 'UnreadCounts' },
)

const Online = Type.Boolean({ examples: [true] })
const LastSeen = unset(Time)
export const PresenceList = Type.Object({
  items: Type.Array(Type.Object({ userId: UserId, online: Online, lastSeenAt: LastSeen }, { title: 'Presence' })),
})
export const DevicePage = pageOf(Type.Object({ deviceId: DeviceId, online: Online, lastSeenAt: LastSeen }, { title: 'Device' }))
export const UserPage = pageOf(Type.Object({ userId: UserId }))

/** RFC 9457. */
export const Problem = Type.Object(
  {
    type: Type.String({ description: 'Names the kind of problem, the same for each code' }),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String({ description: 'What programs go by' }),
    detail: Type.String({ description: 'What was wrong this time, and what to do' }),
    temporary: Type.Boolean({ description: 'Send the very same thing again later' }),
    errors: Type.Optional(Type.Array(Type.Object({ field: Type.String(), message: Type.String() }))),
  },
  { title: 'Problem' },
)
