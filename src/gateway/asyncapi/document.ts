/** The AsyncAPI document of the WebSocket: made of the very schemas that client frames are checked with, and that tests hold the server's frames to. */
import { refusals } from '../../domain/errors.js'
import { FRAME_BYTES_MAX } from '../../schemas/common.js'
import { clientFrames, closeCodes } from '../frames.js'
import { answers, serverFrames } from '../server-frames.js'
import { clientFrameNotes, eventExample, eventExamples, serverFrameNotes } from './examples.js'

type Json = null | boolean | number | string | Json[] | JsonMap
export interface JsonMap {
  [key: string]: Json
}

interface CloseNote {
  when: string
  advice: string
}

const closeNotes: Record<keyof typeof closeCodes, CloseNote> = {
  leaving: {
    when: 'this node is leaving, or cannot verify the token now',
    advice: 'connect again, after `reconnectAfterMs` where a `goaway` came',
  },
  tooSlow: { when: 'more than 1 MiB waits for a socket that does not read', advice: 'connect again and resume' },
  noHello: { when: 'no `hello` within 10 s', advice: 'connect again' },
  tokenExpired: { when: 'the token has expired', advice: 'connect again with a new one' },
  tooManyFrames: { when: '1,000 frames were refused as `rate_limited` within 10 s', advice: 'connect again, later, and send less' },
  tokenRefused: {
    when: "the token is not valid, or an app's secret, or this `hello` would be refused again for another reason",
    advice: 'do not connect again with it',
  },
  deviceRevoked: { when: 'the device was revoked', advice: 'do not connect again before the user has signed in anew' },
  notAFrame: { when: 'what came is no JSON text frame with a string `type`', advice: 'do not connect again: the client has a bug' },
  replaced: { when: 'a newer connection of the same device, or a 21st of the user, has taken its place', advice: 'do not connect again' },
}

/** Every close code of the server. */
export const closeTable = [
  ...Object.entries(closeCodes).map(([name, code]) => ({
    code: code as number,
    name,
    reconnect: code < 4_500,
    ...closeNotes[name as keyof typeof closeCodes],
  })),
  {
    code: 1_009,
    name: 'frameTooBig',
    reconnect: true,
    when: `a frame had more than ${FRAME_BYTES_MAX / 1_024} KiB`,
    advice: 'connect again, and do not send it again',
  },
].sort((one, other) => one.code - other.code)

const description = `JSON text frames, each an object with a string \`type\`; anything else is closed with 4504. A request carries \`ref\`, an integer of the client's, and gets exactly one \`ok\` or \`error\` with it. Any other fault (unknown type, missing or unknown field, no right) is an \`error\`, and the connection stays.

The token travels in \`hello\`, never in the URL. \`hello\` comes first, within 10 s.

**Complete.** One dense \`seq\` per conversation covers every fact, and every event carries \`head\`. A client that holds \`seq\` n and sees n + 2 asks for what is between with \`events.get\`. Where something is left out on purpose a \`head\` says so.

**Limits.** A frame has at most ${FRAME_BYTES_MAX / 1_024} KiB. 60 frames a second sustained, bursts of 300: beyond that \`rate_limited\`, and the frame is not executed: send it again after \`retryAfterMs\`. \`hello\`, \`presence.query\` and large frames are weighed, too, and taken from the units that the user has over REST. 20 connections a user, one a device. A ping frame comes every \`heartbeatMs\`; a socket silent for twice that is closed.

**Close codes.** 4000 to 4499: connect again. 4500 to 4999: don't.`

/** The document, with every message, example, event type, error and close code. */
export function createAsyncApiDocument(): JsonMap {
  const schemas: JsonMap = {}
  const messages = messagesOf(schemas)
  return {
    asyncapi: '3.0.0',
    info: { title: 'Convolog WebSocket', version: '1.0.0', description, license: { name: 'Apache-2.0' } },
    defaultContentType: 'application/json',
    servers: { local: { host: 'localhost:8080', protocol: 'ws', description: 'As `npm start` serves it; elsewhere behind TLS, as wss' } },
    channels: {
      socket: {
        address: '/v1/ws',
        description: 'One connection of one device.',
        bindings: { ws: { method: 'GET' } },
        messages: Object.fromEntries(Object.keys(messages).map((key) => [key, { $ref: `#/components/messages/${key}` }])),
      },
    },
    operations: operationsOf(),
    components: { messages, schemas: sorted(schemas) },
    'x-close-codes': closeTable,
    'x-errors': Object.entries(refusals).map(([code, { status, title, temporary }]) => ({ code, status, title, temporary })),
  }
}

const keyOfClient = (type: string) => `client.${type}`
const keyOfAnswer = (type: string) => `ok.${type}`
const keyOfServer = (type: string) => `server.${type}`

function messagesOf(schemas: JsonMap): JsonMap {
  const messages: JsonMap = {}
  const add = (key: string, type: string, schema: object, notes: { summary: string; description?: string }, examples: JsonMap[]) => {
    messages[key] = {
      name: type,
      title: key.startsWith('ok.') ? `ok of ${key.slice(3)}` : type,
      summary: notes.summary,
      ...(notes.description === undefined ? {} : { description: notes.description }),
      payload: lift(schema as JsonMap, schemas),
      examples,
    }
  }
  for (const [type, schema] of Object.entries(clientFrames)) {
    const notes = clientFrameNotes[type as keyof typeof clientFrames]
    add(keyOfClient(type), type, schema, notes, [exampleOf(notes.example)])
    const answer = answers.get(type)
    if (answer && notes.answer) add(keyOfAnswer(type), 'ok', answer, { summary: `The answer to \`${type}\`` }, [exampleOf(notes.answer)])
  }
  for (const [type, schema] of Object.entries(serverFrames)) {
    const notes = serverFrameNotes[type as keyof typeof serverFrames]
    const more =
      type === 'events'
        ? Object.entries(eventExamples).map(([eventType, data]) =>
            exampleOf({ type, events: [eventExample(eventType, data)], resume: '0000000000004711.Ab3dE_9x' }, eventType),
          )
        : [exampleOf(notes.example)]
    add(keyOfServer(type), type, schema, notes, more)
  }
  return messages
}

const exampleOf = (payload: object, name = (payload as { type: string }).type): JsonMap => ({ name, payload: payload as JsonMap })

/** As seen from the server, whose document it is: it receives what clients send. */
function operationsOf(): JsonMap {
  const channel = { $ref: '#/channels/socket' }
  const message = (key: string) => ({ $ref: `#/channels/socket/messages/${key}` })
  const operations: JsonMap = {}
  for (const [type, { summary }] of Object.entries(clientFrameNotes)) {
    const answer = type === 'ping' ? [message(keyOfServer('pong'))] : answers.has(type) ? [message(keyOfAnswer(type))] : []
    operations[type] = {
      action: 'receive',
      summary,
      channel,
      messages: [message(keyOfClient(type))],
      reply: { channel, messages: [...answer, message(keyOfServer('error'))] },
    }
  }
  for (const [type, { summary }] of Object.entries(serverFrameNotes)) {
    if (type !== 'pong') operations[`push.${type}`] = { action: 'send', summary, channel, messages: [message(keyOfServer(type))] }
  }
  return operations
}

/** Every schema with a title becomes a component; formats of our own are left to their descriptions, and a discriminator is a name alone. */
function lift(value: Json, schemas: JsonMap): Json {
  if (Array.isArray(value)) return value.map((item) => lift(item, schemas))
  if (value === null || typeof value !== 'object') return value
  const copy: JsonMap = {}
  for (const [key, inner] of Object.entries(value)) {
    if (key === 'format') {
      if (inner === 'http-url') copy[key] = 'uri'
    } else if (key === 'discriminator') copy[key] = (inner as JsonMap)['propertyName']!
    else copy[key] = key === 'examples' ? inner : lift(inner, schemas)
  }
  const { title } = value
  if (typeof title !== 'string') return copy
  schemas[title] = copy
  return { $ref: `#/components/schemas/${title}` }
}

const sorted = (map: JsonMap): JsonMap => Object.fromEntries(Object.entries(map).sort(([one], [other]) => (one < other ? -1 : 1)))
