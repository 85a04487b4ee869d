/** What a server sends, frame by frame. Frames are not checked on their way out; tests hold what is really sent to these schemas. */
import { type TSchema, Type } from 'typebox'
import { type RefusalCode, refusals } from '../domain/errors.js'
import { ConversationId, DeviceId, Seq, UserId, closedObject } from '../schemas/common.js'
import { ConversationFact, Time } from '../schemas/events.js'
import { Position, nullable } from '../schemas/rest.js'
import { type ClientFrames, Ref } from './frames.js'

const described = <Schema extends TSchema>(schema: Schema, description: string) => ({ ...schema, description }) as Schema

const NewSeq = described(Seq, 'Of the new fact; the head where nothing changed')
const Head = described(Seq, "The conversation's last seq")
const ReadSeq = described(Seq, 'All up to here is read')
const WriteAt = described(
  Position,
  'A place in the whole log, opaque: a REST read with it as `minPosition` shows this write. No place to resume from',
)
const Resume = described(Position, 'Give it as `position` to the next `hello`')
const Unchanged = Type.Optional(Type.Boolean({ description: 'Only where it was so already: nothing was written', examples: [true] }))
const Count = (description: string) => Type.Integer({ minimum: 0, description, examples: [2] })
const Online = Type.Boolean({ description: 'One of its devices has a socket, or had one 5 s ago', examples: [true] })
const LastSeen = nullable(described(Time, 'null while online, where unknown, and to those who may not see it'))
const Events = Type.Array(ConversationFact, { description: 'In seq order' })
const presence = { userId: UserId, online: Online, lastSeenAt: LastSeen }
const Presences = Type.Array(closedObject(presence), { description: 'How they are now' })

const written = { seq: NewSeq, position: WriteAt, unchanged: Unchanged }

/** The fields of `ok`, beside `type` and `ref`, by the request that it answers; null where there is no `ok`. */
const answerFields = {
  hello: {
    sessionId: Type.String({ description: 'Of this connection; in the logs of the server' }),
    userId: UserId,
    deviceId: DeviceId,
    position: described(Position, 'Where this connection begins'),
    recovered: Type.Boolean({
      description: 'false: what was missed does not come, `reason` says why. Live from `position`; read `/inbox` and `events`',
    }),
    reason: Type.Optional(
      Type.String({
        enum: ['too_far', 'other_log'],
        description:
          'Only with `recovered: false`. `too_far`: more than 10,000 events were missed. `other_log`: the position is not of this log, because it is malformed, or the log has been begun anew or restored: drop everything that is stored but the unsent messages',
        examples: ['too_far'],
      }),
    ),
    heartbeatMs: Type.Integer({
      minimum: 1,
      description: 'A ping frame comes this often; a socket silent for twice that is closed',
      examples: [30_000],
    }),
  },
  'message.send': {
    conversationId: ConversationId,
    seq: Seq,
    ordinal: Type.Integer({ minimum: 1, description: 'Messages only, dense from 1', examples: [9] }),
    position: WriteAt,
    sentAt: Time,
    duplicate: Type.Optional(Type.Boolean({ description: 'Only where it was sent before: this is the first result', examples: [true] })),
  },
  'message.edit': written,
  'message.recall': written,
  'reaction.add': written,
  'reaction.remove': written,
  read: { readSeq: ReadSeq, position: WriteAt, seq: Type.Optional(Head), unchanged: Unchanged },
  ack: null,
  'events.get': {
    events: Events,
    head: Head,
    more: Type.Boolean({ description: 'There are newer events: go on after the last one', examples: [false] }),
  },
  typing: null,
  active: null,
  'presence.query': { items: Presences },
  'presence.subscribe': { items: Presences },
  ping: null,
} satisfies Record<keyof ClientFrames, Record<string, TSchema> | null>

/** `ok` by the type of the request. */
export const answers: ReadonlyMap<string, TSchema> = new Map(
  Object.entries(answerFields).flatMap(([type, fields]) =>
    fields === null ? [] : [[type, closedObject({ type: Type.Literal('ok'), ref: Ref, ...fields })]],
  ),
)

const codes = Object.keys(refusals) as RefusalCode[]

/** What comes without being an `ok`, by its `type`. */
export const serverFrames = {
  events: closedObject({
    type: Type.Literal('events'),
    events: Type.Array(ConversationFact, { minItems: 1, description: 'Facts of one conversation, in seq order' }),
    resume: Resume,
    again: Type.Optional(Type.Boolean({ description: 'A re-push of what was not acknowledged', examples: [true] })),
  }),
  head: closedObject({ type: Type.Literal('head'), conversationId: ConversationId, seq: Head, resume: Resume }),
  receipt: closedObject(
    {
      type: Type.Literal('receipt'),
      conversationId: ConversationId,
      userId: UserId,
      readSeq: Type.Optional(ReadSeq),
      deliveredSeq: Type.Optional(described(Seq, 'All up to here has arrived on one of its devices')),
    },
    { minProperties: 4 },
  ),
  unread: closedObject({
    type: Type.Literal('unread'),
    conversationId: ConversationId,
    unread: Count('Unread messages of this conversation'),
    mentions: Count('Of these, those that mention one'),
    total: Count('Unread messages of all conversations that are not muted'),
  }),
  presence: closedObject({ type: Type.Literal('presence'), ...presence }),
  typing: closedObject({
    type: Type.Literal('typing'),
    conversationId: ConversationId,
    userId: UserId,
    on: Type.Boolean({ description: 'true holds for 6 s', examples: [true] }),
  }),
  goaway: closedObject({
    type: Type.Literal('goaway'),
    reconnectAfterMs: Type.Integer({ minimum: 0, description: 'Wait this long, then connect again', examples: [350] }),
  }),
  pong: closedObject({ type: Type.Literal('pong'), ref: Type.Optional(Ref) }),
  error: closedObject({
    type: Type.Literal('error'),
    ref: Type.Optional(described(Ref, 'Of the frame that was refused; without: about a frame that had none, or why a close follows')),
    code: Type.Unsafe<RefusalCode>(Type.String({ enum: codes, description: 'What programs go by' })),
    message: Type.String({ description: 'What was wrong, for people; `invalid_request` names the field first' }),
    temporary: Type.Boolean({ description: 'Send the very same frame again later' }),
    retryAfterMs: Type.Optional(Type.Integer({ minimum: 1, description: 'With `rate_limited`: after this', examples: [250] })),
  }),
} satisfies Record<string, TSchema>
