/** The frames of the WebSocket protocol: what clients may send, and how what they get is made. */
import { type Static, type TSchema, Type } from 'typebox'
import { Refusal, invalidField, type RefusalCode, refusals } from '../domain/errors.js'
import {
  CONTENT_BYTES_MAX,
  ClientMessageId,
  Content,
  ConversationId,
  DeviceId,
  Emoji,
  Mentions,
  PAGE_MAX,
  Seq,
  UserId,
  closedObject,
} from '../schemas/common.js'
import { requireFaithfulJson } from '../schemas/faithful-json.js'
import { compileBody, refusalOf, requireBytes, requireCleanJson } from '../schemas/validator.js'

export const Ref = Type.Integer({
  minimum: 0,
  maximum: Number.MAX_SAFE_INTEGER,
  description: "The client's number of a request; its one answer carries it",
})
const PRESENCE_USERS_MAX = 500
/** Where a refusal does not say when to try again. */
const RETRY_AFTER_MS = 1_000
const UserIds = Type.Array(UserId, { minItems: 1, maxItems: PRESENCE_USERS_MAX })

/** Every frame that a client may send, by its `type`. AsyncAPI is checked against this table. */
export const clientFrames = {
  hello: closedObject({
    type: Type.Literal('hello'),
    ref: Ref,
    token: Type.String({ minLength: 1, maxLength: 8_192 }),
    deviceId: Type.Optional(DeviceId),
    position: Type.Optional(Type.String({ maxLength: 256 })),
    acks: Type.Optional(Type.Boolean()),
  }),
  'message.send': closedObject({
    type: Type.Literal('message.send'),
    ref: Ref,
    conversationId: ConversationId,
    clientMessageId: ClientMessageId,
    content: Content,
    replyToSeq: Type.Optional(Seq),
    mentions: Type.Optional(Mentions),
  }),
  'message.edit': closedObject({
    type: Type.Literal('message.edit'),
    ref: Ref,
    conversationId: ConversationId,
    seq: Seq,
    content: Content,
  }),
  'message.recall': closedObject({ type: Type.Literal('message.recall'), ref: Ref, conversationId: ConversationId, seq: Seq }),
  'reaction.add': closedObject({ type: Type.Literal('reaction.add'), ref: Ref, conversationId: ConversationId, seq: Seq, emoji: Emoji }),
  'reaction.remove': closedObject({
    type: Type.Literal('reaction.remove'),
    ref: Ref,
    conversationId: ConversationId,
    seq: Seq,
    emoji: Emoji,
  }),
  read: closedObject({ type: Type.Literal('read'), ref: Type.Optional(Ref), conversationId: ConversationId, seq: Seq }),
  ack: closedObject({ type: Type.Literal('ack'), conversationId: ConversationId, seq: Seq }),
  'events.get': closedObject({
    type: Type.Literal('events.get'),
    ref: Ref,
    conversationId: ConversationId,
    after: Type.Optional(Type.Integer({ minimum: -1, maximum: Number.MAX_SAFE_INTEGER })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: PAGE_MAX })),
  }),
  typing: closedObject({ type: Type.Literal('typing'), conversationId: ConversationId, on: Type.Boolean() }),
  active: closedObject({ type: Type.Literal('active'), conversationId: Type.Union([ConversationId, Type.Null()]) }),
  'presence.query': closedObject({ type: Type.Literal('presence.query'), ref: Ref, userIds: UserIds }),
  'presence.subscribe': closedObject({
    type: Type.Literal('presence.subscribe'),
    ref: Ref,
    userIds: Type.Optional(Type.Array(UserId, { maxItems: PRESENCE_USERS_MAX })),
    contacts: Type.Optional(Type.Boolean()),
  }),
  ping: closedObject({ type: Type.Literal('ping'), ref: Type.Optional(Ref) }),
} satisfies Record<string, TSchema>

export type ClientFrames = { [Type in keyof typeof clientFrames]: Static<(typeof clientFrames)[Type]> }
export type ClientFrame = ClientFrames[keyof ClientFrames]

const validators = new Map(Object.entries(clientFrames).map(([type, schema]) => [type, compileBody(schema)]))

/** Not a frame of this protocol: the connection is closed with 4504. */
export class NotAFrame extends Error {}

/** A frame that is wrong: its `ref`, where it has a usable one, gets the refusal. */
export class WrongFrame extends Error {
  readonly type: string
  readonly ref: number | undefined
  readonly refusal: Refusal

  constructor(type: string, ref: number | undefined, refusal: Refusal) {
    super(refusal.message)
    this.type = type
    this.ref = ref
    this.refusal = refusal
  }
}

/**
 * Parses and checks one text frame; inside, its type is trusted.
 * @throws {NotAFrame} no JSON object with a string `type`
 * @throws {WrongFrame} anything else that is wrong
 */
export function parseFrame(text: string): ClientFrame {
  const frame = parseObject(text)
  const ref = typeof frame.ref === 'number' && Number.isSafeInteger(frame.ref) && frame.ref >= 0 ? frame.ref : undefined
  const validate = validators.get(frame.type)
  if (!validate)
    throw new WrongFrame(
      frame.type,
      ref,
      invalidField('type', `${JSON.stringify(frame.type.slice(0, 40))} is not a frame that clients send`),
    )
  try {
    if (!validate(frame)) throw refusalOf(validate.errors)
    if ('content' in frame) {
      requireContent(frame['content'], text)
      requireFaithfulJson(frame, text)
    }
  } catch (error) {
    if (error instanceof Refusal) throw new WrongFrame(frame.type, ref, overBytes(frame) ?? error)
    throw error
  }
  return frame as unknown as ClientFrame
}

function parseObject(text: string): { type: string; ref?: unknown; [field: string]: unknown } {
  let frame: unknown
  try {
    frame = JSON.parse(text)
  } catch {
    throw new NotAFrame('Frames are JSON text.')
  }
  if (typeof frame !== 'object' || frame === null || Array.isArray(frame)) throw new NotAFrame('Frames are JSON objects.')
  if (!('type' in frame) || typeof frame.type !== 'string') throw new NotAFrame('Frames have a string type.')
  return frame as { type: string }
}

function requireContent(content: unknown, text: string): void {
  requireCleanJson(content, 'content')
  // Escapes and numbers may grow when written anew, but text never doubles: below half of the bound nothing needs counting.
  if (text.length > CONTENT_BYTES_MAX / 8) requireBytes(content, CONTENT_BYTES_MAX, 'content')
}

/** Content over its bytes is told so, whatever else is wrong with it. */
function overBytes(frame: { [field: string]: unknown }): Refusal | undefined {
  try {
    requireBytes(frame['content'], CONTENT_BYTES_MAX, 'content')
    return undefined
  } catch (error) {
    return error instanceof Refusal ? error : undefined
  }
}

/**
 * One text frame of a server (RFC 6455 §5.2: FIN, opcode 1, no mask) in one buffer,
 * so that it is encoded once, copied never, and shared by every socket it goes to.
 */
export function textFrame(json: string): Buffer {
  const bytes = Buffer.byteLength(json)
  const headerBytes = bytes < 126 ? 2 : bytes < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(headerBytes + bytes)
  frame[0] = 0x81
  if (headerBytes === 2) frame[1] = bytes
  else if (headerBytes === 4) {
    frame[1] = 126
    frame.writeUInt16BE(bytes, 2)
  } else {
    frame[1] = 127
    frame.writeBigUInt64BE(BigInt(bytes), 2)
  }
  frame.write(json, headerBytes)
  return frame
}

/** An `events` frame of facts that are JSON text already. */
export const eventsFrame = (events: readonly string[], resume: string, again = false): Buffer =>
  textFrame(`{"type":"events","events":[${events.join(',')}],"resume":"${resume}"${again ? ',"again":true' : ''}}`)

export const headFrame = (conversationId: string, seq: number, resume: string): Buffer =>
  textFrame(`{"type":"head","conversationId":"${conversationId}","seq":${seq},"resume":"${resume}"}`)

export const jsonFrame = (frame: object): Buffer => textFrame(JSON.stringify(frame))

export function errorFrame(ref: number | undefined, code: RefusalCode, message: string): Buffer {
  return jsonFrame({ type: 'error', ...(ref === undefined ? {} : { ref }), code, message, temporary: refusals[code].temporary })
}

/** Tells a client of a refusal, and when to try again where that is known to help. */
export function refusalFrame(ref: number | undefined, { code, message, temporary, retryAfterMs }: Refusal): Buffer {
  if (code !== 'rate_limited') return errorFrame(ref, code, message)
  const after = Math.ceil(retryAfterMs ?? RETRY_AFTER_MS)
  return jsonFrame({ type: 'error', ...(ref === undefined ? {} : { ref }), code, message, temporary, retryAfterMs: after })
}

/** Below 4500: connect again. From 4500 on: don't. */
export const closeCodes = {
  leaving: 4000,
  tooSlow: 4001,
  noHello: 4008,
  tokenExpired: 4402,
  tooManyFrames: 4408,
  tokenRefused: 4501,
  deviceRevoked: 4503,
  notAFrame: 4504,
  replaced: 4505,
} as const
