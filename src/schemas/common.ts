/** The shapes that REST and WebSocket share: bounds of the contract, in one place. */
import { Type } from 'typebox'
import type { JsonObject } from '../domain/events.js'
import { CONVERSATION_ID_MAX, CONVERSATION_ID_PATTERN, USER_ID_PATTERN } from '../domain/ids.js'

export const CONTENT_BYTES_MAX = 32 * 1024
export const CUSTOM_BYTES_MAX = 4 * 1024
export const BODY_BYTES_MAX = 256 * 1024
export const FRAME_BYTES_MAX = 64 * 1024
/** Of one WebSocket message. */
export const FRAGMENTS_MAX = 1_024
export const TEXT_CHARACTERS_MAX = 20_000
export const NAME_CHARACTERS_MAX = 200
export const URL_CHARACTERS_MAX = 2_048
export const MENTIONS_MAX = 50
export const PAGE_MAX = 200
export const PAGE_DEFAULT = 50
/** A page ends before the item with which it would come to more, about, but has at least one. */
export const PAGE_BYTES_MAX = 512 * 1024

const closed = { additionalProperties: false } as const

/** A body or part of one that refuses unknown fields. */
export const closedObject = <const Properties extends Parameters<typeof Type.Object>[0]>(properties: Properties, options: object = {}) =>
  Type.Object(properties, { ...closed, ...options })

export const UserId = Type.String({
  pattern: USER_ID_PATTERN,
  minLength: 1,
  maxLength: 64,
  description: "A user's id, the app's own",
  examples: ['alice'],
})
export const DeviceId = Type.String({
  pattern: USER_ID_PATTERN,
  minLength: 1,
  maxLength: 64,
  description: "A device's id, the app's own",
  examples: ['phone'],
})
export const ConversationId = Type.String({
  pattern: CONVERSATION_ID_PATTERN,
  minLength: 1,
  maxLength: CONVERSATION_ID_MAX,
  description: "The server's id of a conversation, opaque",
  examples: ['g-Zm9vYmFyYmF6cXV4MTIzNA'],
})
export const ClientMessageId = Type.String({
  pattern: '^[ -~]{1,64}$',
  minLength: 1,
  maxLength: 64,
  description: "The client's own id of a message: a resend with it is the same message",
  examples: ['3f1c-1'],
})
export const Seq = Type.Integer({
  minimum: 0,
  maximum: Number.MAX_SAFE_INTEGER,
  description: "Revision of the conversation's stream, dense from 0",
  examples: [17],
})
export const Emoji = Type.String({
  minLength: 1,
  format: 'utf8_32',
  description: 'At most 32 bytes of UTF-8, without NUL',
  examples: ['👍'],
})
export const Name = Type.String({ maxLength: NAME_CHARACTERS_MAX, examples: ['Crew'] })
export const HttpUrl = Type.String({
  format: 'http-url',
  maxLength: URL_CHARACTERS_MAX,
  description: 'An http or https URL',
  examples: ['https://cdn.example/picture.png'],
})
export const Custom = Type.Unsafe<JsonObject>(
  Type.Object({}, { additionalProperties: true, description: "The app's own data, at most 4 KiB as JSON", examples: [{ colour: 'red' }] }),
)
export const JoinPolicy = Type.Unsafe<'invite' | 'open'>(
  Type.String({ enum: ['invite', 'open'], description: 'Who may join by itself', examples: ['invite'] }),
)
export const Role = Type.Unsafe<'owner' | 'admin' | 'member'>(Type.String({ enum: ['owner', 'admin', 'member'], examples: ['member'] }))

const count = (description: string) => Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description })

const media = (type: string) =>
  closedObject(
    {
      type: Type.Literal(type),
      url: HttpUrl,
      mimeType: Type.String({ minLength: 1, maxLength: 255, examples: ['image/png'] }),
      bytes: count('Size of what the URL gives'),
      width: Type.Optional(count('Pixels')),
      height: Type.Optional(count('Pixels')),
      durationMs: Type.Optional(count('Milliseconds')),
      name: Type.Optional(Name),
    },
    { title: `${type.charAt(0).toUpperCase()}${type.slice(1)}Content` },
  )

const textContent = closedObject(
  { type: Type.Literal('text'), text: Type.String({ minLength: 1, maxLength: TEXT_CHARACTERS_MAX }) },
  { title: 'TextContent' },
)
const customContent = closedObject(
  { type: Type.Literal('custom'), data: Type.Object({}, { additionalProperties: true }) },
  { title: 'CustomContent' },
)

/** What a message says; at most CONTENT_BYTES_MAX as JSON. */
export const Content = Type.Unsafe<import('../domain/events.js').Content>({
  title: 'Content',
  type: 'object',
  description: 'What a message says, at most 32 KiB as JSON',
  discriminator: { propertyName: 'type' },
  required: ['type'],
  oneOf: [textContent, media('image'), media('voice'), media('file'), customContent],
  examples: [{ type: 'text', text: 'Hello' }],
})

export const Mentions = Type.Array(UserId, { maxItems: MENTIONS_MAX, description: 'Users mentioned, a set', examples: [['bob']] })
