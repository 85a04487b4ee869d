/** The facts of a conversation as clients see them: every type and its `data`. */
import { type TSchema, Type } from 'typebox'
import type { ConversationEvent } from '../domain/events.js'
import { ClientMessageId, Content, ConversationId, Custom, Emoji, JoinPolicy, Mentions, Role, Seq, UserId, closedObject } from './common.js'
import { Position, nullable } from './rest.js'

const MessageSeq = { ...Seq, description: 'The message' } as typeof Seq
const Ordinal = Type.Integer({ minimum: 1, description: 'Messages only, dense from 1', examples: [9] })
/** Recalled content is served to nobody. */
const Shown = Type.Unsafe({ anyOf: [Content, { type: 'null' }], description: 'null where the message was recalled' })
const ConversationName = Type.String({ description: 'Name of a group', examples: ['Crew'] })
const Members = Type.Array(closedObject({ userId: UserId, role: Role }), {
  description: 'All members at the creation',
  examples: [[{ userId: 'alice', role: 'owner' }]],
})

/** `data` by event type; the compiler holds the list to the types of the log. */
export const eventData = {
  ConversationCreated: closedObject({
    type: Type.Unsafe<'direct' | 'group'>(Type.String({ enum: ['direct', 'group'] })),
    name: Type.Optional(ConversationName),
    joinPolicy: JoinPolicy,
    custom: Type.Optional(Custom),
    members: Members,
  }),
  ConversationUpdated: closedObject(
    { name: Type.Optional(nullable(ConversationName)), joinPolicy: Type.Optional(JoinPolicy), custom: Type.Optional(Custom) },
    { description: 'What changed, and nothing else; null: cleared' },
  ),
  ConversationFrozen: closedObject({}),
  ConversationUnfrozen: closedObject({}),
  MemberJoined: closedObject({ userId: UserId, role: Role }, { description: 'By itself or added: `actor` tells' }),
  MemberLeft: closedObject({ userId: UserId }),
  MemberRemoved: closedObject({ userId: UserId }),
  MemberRoleChanged: closedObject({ userId: UserId, role: Role }),
  MessageSent: closedObject({
    clientMessageId: ClientMessageId,
    ordinal: Ordinal,
    content: Shown,
    replyToSeq: Type.Optional(Seq),
    mentions: Type.Optional(Mentions),
  }),
  MessageEdited: closedObject({ messageSeq: MessageSeq, content: Shown }),
  MessageRecalled: closedObject({ messageSeq: MessageSeq }),
  ReactionAdded: closedObject({ messageSeq: MessageSeq, emoji: Emoji }),
  ReactionRemoved: closedObject({ messageSeq: MessageSeq, emoji: Emoji }),
  MessagePinned: closedObject({ messageSeq: MessageSeq }),
  MessageUnpinned: closedObject({ messageSeq: MessageSeq }),
} satisfies Record<ConversationEvent['type'], TSchema>

const Actor = closedObject(
  {
    userId: Type.Optional(UserId),
    app: Type.Optional(Type.String({ description: 'The app that did it, for the user where there is one', examples: ['bot'] })),
  },
  { title: 'Actor', minProperties: 1, description: 'Who did it: `{userId}`, `{userId, app}` or `{app}`' },
)
export const Time = Type.String({
  pattern: String.raw`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`,
  description: 'ISO 8601, UTC, milliseconds',
  examples: ['2026-05-04T09:30:00.125Z'],
})

const eventSchemas = Object.entries(eventData).map(([type, data]) =>
  closedObject(
    {
      conversationId: ConversationId,
      seq: Seq,
      type: Type.Literal(type),
      at: Time,
      actor: Actor,
      data,
      position: Position,
      head: {
        ...Seq,
        description: "The conversation's last seq as far as known: a client that has all up to it is complete",
      } as typeof Seq,
    },
    { title: type },
  ),
)

/** One fact, as pushes, `events.get` and `GET …/events` give it. */
export const ConversationFact = Type.Unsafe({
  title: 'Event',
  type: 'object',
  description: 'One fact of a conversation; `data` is as its `type` says',
  required: ['type'],
  discriminator: { propertyName: 'type' },
  oneOf: eventSchemas,
})
