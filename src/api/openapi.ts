/** The OpenAPI document: made of the same schemas that validate, and completed with what all calls have in common. */
import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import { type RefusalCode, Refusal, refusals } from '../domain/errors.js'
import { Problem } from '../schemas/rest.js'
import { PROBLEM_TYPE, problemOf } from './problems.js'
import { APP_UNITS_PER_SECOND, USER_UNITS_PER_SECOND } from '../load/load.js'

type Json = null | boolean | number | string | Json[] | JsonMap
interface JsonMap {
  [key: string]: Json
}

interface Operation {
  parameters?: Json[]
  requestBody?: { content: Record<string, Media>; required?: boolean }
  responses: Record<string, { description: string; headers?: JsonMap; content?: Record<string, Media> }>
  security?: Json[]
  [extension: `x-${string}`]: unknown
}

interface Media {
  schema: JsonMap
  example?: Json
  examples?: JsonMap
}

const description = `Every conversation is an append-only stream of events; the revision of the stream is the \`seq\` of its messages.

**Who calls.** \`Authorization: Bearer\` with a user's JWT, or with an app's secret. An app names the user for whom it acts in \`On-Behalf-Of\`.

**Errors** are \`application/problem+json\`; programs go by \`code\`. Where \`temporary\` is true, send the very same thing again after \`Retry-After\`.

**Writing twice.** A write that changes nothing answers 200 with \`unchanged: true\`. A message is resent with the same \`clientMessageId\`.

**Reading what was written.** A write answers with \`position\`; a read with \`?minPosition=\` waits up to 5 s until it shows it.

**Pages** are \`?cursor=&limit=\` → \`{items, nextCursor}\`; \`nextCursor\` is null at the end.

**Limits.** A user has ${USER_UNITS_PER_SECOND} units a second, also where an app acts for it, and an app that acts as itself ${APP_UNITS_PER_SECOND}. A request costs one unit, and more for what it makes the server do: members added, pages read, bytes sent. \`RateLimit\` tells what is left; without any, or where the server is overloaded by you, the answer is \`rate_limited\`.

**Live.** Devices hold a WebSocket at \`/v1/ws\`: [its protocol](docs/websocket). All [errors](docs/errors).

Every answer has an \`X-Request-Id\`: the request's own where it has one, and the same in the events that the request led to.`

const tags = [
  'Tokens',
  'Users',
  'Conversations',
  'Members',
  'Messages',
  'Reactions',
  'Pins',
  'Events',
  'Receipts',
  'Inbox',
  'Presence',
  'Contacts',
  'Blocks',
  'Devices',
]

/** What every call can be refused with. */
const common: readonly RefusalCode[] = ['invalid_request', 'unauthenticated', 'rate_limited', 'unavailable', 'internal']
const withBody: readonly RefusalCode[] = ['payload_too_large', 'unsupported_media_type']

/** In the document as it is committed: no server of its own. */
const ANY_SERVER = '/'

/** The document as JSON text, with the server that it was asked of. */
export const withServer = (document: string, url: string): string =>
  document.replace(`"servers":[{"url":"${ANY_SERVER}"}]`, () => `"servers":[{"url":${JSON.stringify(url)}}]`)

/** Must be registered before the routes. */
export async function registerOpenApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Convolog API', version: '1.0.0', description, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } as never },
      servers: [{ url: ANY_SERVER }],
      tags: tags.map((name) => ({ name })),
      security: [{ userToken: [] }, { appSecret: [] }],
      components: {
        securitySchemes: {
          userToken: {
            type: 'http',
            scheme: 'bearer',
            bearerFormat: 'JWT',
            description: "A user's token: `sub`, `exp`, `iat`, optional `deviceId`; from `POST /v1/tokens` or an issuer of your own",
          },
          appSecret: { type: 'http', scheme: 'bearer', description: "An app's secret of `APP_KEYS`, for its server only" },
        },
      },
    },
    transform: ({ schema, url, route }) => ({
      schema: {
        ...schema,
        'x-refusals': route.config?.refusals ?? [],
        'x-idempotency-key': route.config?.idempotencyKey ?? false,
      } as typeof schema,
      url,
    }),
    transformObject: (document) =>
      'openapiObject' in document ? (complete(document.openapiObject as unknown as JsonMap) as never) : (document.swaggerObject as never),
  })
}

function complete(document: JsonMap): JsonMap {
  const components: JsonMap = {}
  const paths = document['paths'] as unknown as Record<string, Record<string, Operation>>
  for (const operations of Object.values(paths)) {
    for (const [method, operation] of Object.entries(operations)) operations[method] = completeOperation(operation)
  }
  document['paths'] = lift(paths as unknown as Json, components)
  document['components'] = {
    ...(document['components'] as JsonMap),
    schemas: { ...sorted(components), Problem: lift(Problem as unknown as Json, {}, true) },
    parameters: { OnBehalfOf: onBehalfOf, IdempotencyKey: idempotencyKey },
    headers: rateLimitHeaders,
    examples: Object.fromEntries(answered.map((code) => [code, { value: problemExample(code) }])),
  }
  return document
}

/** Another method is no operation. */
const answered = (Object.keys(refusals) as RefusalCode[]).filter((code) => code !== 'method_not_allowed')

const onBehalfOf: JsonMap = {
  name: 'On-Behalf-Of',
  in: 'header',
  description: "The user for whom an app makes the call (scope `act`); not beside a user's token",
  schema: { type: 'string', examples: ['alice'] },
}
/** On every answer to a caller who is known. */
const rateLimitHeaders: JsonMap = {
  RateLimitPolicy: {
    description: 'The budget: `q` units in each window of `w` seconds (draft-ietf-httpapi-ratelimit-headers)',
    schema: { type: 'string', examples: ['"user";q=1000;w=1'] },
  },
  RateLimit: {
    description: 'What is left of it: `r` units; after `t` seconds all of them are back',
    schema: { type: 'string', examples: ['"user";r=999;t=1'] },
  },
}
const withRateLimit: JsonMap = {
  'RateLimit-Policy': { $ref: '#/components/headers/RateLimitPolicy' },
  RateLimit: { $ref: '#/components/headers/RateLimit' },
}
const idempotencyKey: JsonMap = {
  name: 'Idempotency-Key',
  in: 'header',
  description: 'The same key and body of the same user: the first result. It holds for 24 h at least',
  schema: { type: 'string', minLength: 1, maxLength: 128, examples: ['create-crew-1'] },
}

function completeOperation(source: Operation): Operation {
  const { 'x-refusals': own, 'x-idempotency-key': isKeyed, ...operation } = source
  const bodyCodes = operation.requestBody ? withBody : []
  const codes = [...common, ...bodyCodes, ...(own as readonly RefusalCode[])]
  for (const [status, response] of Object.entries(operation.responses)) {
    response.description = status === '201' ? 'Created' : 'OK'
    response.headers = withRateLimit
    for (const media of Object.values(response.content ?? {})) media.example ??= exampleOf(media.schema)
  }
  for (const media of Object.values(operation.requestBody?.content ?? {})) media.example ??= exampleOf(media.schema, false)
  const isAppOnly = operation['operationId' as never] === 'issueToken'
  if (isAppOnly) operation.security = [{ appSecret: [] }]
  const headers = [...(isAppOnly ? [] : ['OnBehalfOf']), ...(isKeyed === true ? ['IdempotencyKey'] : [])].map((name) => ({
    $ref: `#/components/parameters/${name}`,
  }))
  return {
    ...operation,
    parameters: [...(operation.parameters ?? []), ...headers],
    responses: { ...operation.responses, ...problemResponses(codes) },
  }
}

function problemResponses(codes: readonly RefusalCode[]): Operation['responses'] {
  const responses: Operation['responses'] = {}
  for (const code of codes) {
    const { status, title } = refusals[code]
    const response = (responses[status] ??= {
      description: '',
      content: { [PROBLEM_TYPE]: { schema: { $ref: '#/components/schemas/Problem' }, examples: {} } },
    })
    response.description = [response.description, `\`${code}\`: ${title}`].filter(Boolean).join(' · ')
    response.content![PROBLEM_TYPE]!.examples![code] = { $ref: `#/components/examples/${code}` }
  }
  return responses
}

function problemExample(code: RefusalCode): JsonMap {
  if (code !== 'invalid_request') return problemOf(new Refusal(code, `${refusals[code].title}.`)) as unknown as JsonMap
  return problemOf(
    new Refusal(code, 'limit: must be <= 200', { errors: [{ field: 'limit', message: 'must be <= 200' }] }),
  ) as unknown as JsonMap
}

const documentedFormats: Record<string, string | undefined> = { 'http-url': 'uri', 'date-time': 'date-time' }

/** Every schema with a title becomes a component, and formats of our own are left to their descriptions. */
function lift(value: Json, components: JsonMap, isInside = false): Json {
  if (Array.isArray(value)) return value.map((item) => lift(item, components))
  if (value === null || typeof value !== 'object') return value
  const copy: JsonMap = {}
  for (const [key, inner] of Object.entries(value)) {
    if (key === 'format' && typeof inner === 'string') {
      if (documentedFormats[inner] !== undefined) copy[key] = documentedFormats[inner]
    } else copy[key] = key === 'example' || key === 'examples' ? inner : lift(inner, components)
  }
  if ('discriminator' in value) copy['discriminator'] = discriminatorOf(value['discriminator'] as JsonMap, value['oneOf'] as JsonMap[])
  const { title } = value
  if (isInside || typeof title !== 'string' || !isSchema(value)) return copy
  const known = components[title]
  if (known !== undefined && JSON.stringify(known) !== JSON.stringify(copy)) throw new Error(`two schemas have the title ${title}`)
  components[title] = copy
  return { $ref: `#/components/schemas/${title}` }
}

/** Which value of the property means which component. */
function discriminatorOf({ propertyName }: JsonMap, variants: readonly JsonMap[]): JsonMap {
  const valueOf = ({ properties }: JsonMap) => (((properties as JsonMap)[propertyName as string] as JsonMap)['enum'] as string[])[0]!
  return {
    propertyName: propertyName!,
    mapping: Object.fromEntries(variants.map((variant) => [valueOf(variant), `#/components/schemas/${variant['title'] as string}`])),
  }
}

const isSchema = (value: JsonMap) => 'type' in value || 'oneOf' in value

const sorted = (map: JsonMap): JsonMap => Object.fromEntries(Object.entries(map).sort(([one], [other]) => (one < other ? -1 : 1)))

/** An example made of the examples of its parts. `isFull`: with what is optional, which an answer has only sometimes. */
export function exampleOf(schema: JsonMap, isFull = false): Json {
  const { examples, example, properties, items, required = [], oneOf, anyOf, type } = schema
  if (example !== undefined) return example
  if (Array.isArray(examples) && examples.length > 0) return examples[0]!
  if ('const' in schema) return schema['const']!
  if (Array.isArray(oneOf ?? anyOf)) return exampleOf(((oneOf ?? anyOf) as JsonMap[])[0]!, isFull)
  if (properties !== undefined) {
    const shown = Object.entries(properties as JsonMap).filter(
      ([name]) => isFull || (required as string[]).includes(name) || schema['minProperties'] !== undefined,
    )
    return Object.fromEntries(shown.map(([name, property]) => [name, exampleOf(property as JsonMap, isFull)]))
  }
  if (items !== undefined) return [exampleOf(items as JsonMap, isFull)]
  if (Array.isArray(type) && type.includes('null')) return null
  return type === 'integer' || type === 'number' ? 0 : type === 'boolean' ? false : type === 'string' ? 'text' : {}
}
