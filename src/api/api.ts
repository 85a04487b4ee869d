import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { randomUUID } from 'node:crypto'
import { Registry } from 'prom-client'
import type { Config } from '../config.js'
import type { Authenticator } from '../domain/caller.js'
import { invalidField, unavailable } from '../domain/errors.js'
import type { Logger } from '../domain/logger.js'
import { Load } from '../load/load.js'
import { Origins } from '../origins.js'
import { withDeadline } from '../domain/waits.js'
import type { Secrets } from '../secrets.js'
import { BODY_BYTES_MAX } from '../schemas/common.js'
import { requireFaithfulJson } from '../schemas/faithful-json.js'
import { WHOLE_BODY, compileBody, readTexts, refusalOf, requireCleanJson } from '../schemas/validator.js'
import { authenticationHook } from './callers.js'
import { type Health, healthRoutes } from './health.js'
import { measureRequests } from './metrics.js'
import { registerOpenApi, withServer } from './openapi.js'
import { docsRoutes } from './pages/docs.js'
import { startPage } from './pages/start-page.js'
import { webSocketPage } from './pages/websocket-page.js'
import { errorHandler, notFoundHandler } from './problems.js'
import { publicUrlOf } from './public-url.js'
import type { Api, RouteParts } from './route-parts.js'
import { conversationRoutes } from './routes/conversations.js'
import { deviceRoutes } from './routes/devices.js'
import { eventRoutes } from './routes/events.js'
import { inboxRoutes } from './routes/inbox.js'
import { memberRoutes } from './routes/members.js'
import { messageMarkRoutes } from './routes/message-marks.js'
import { messageRoutes } from './routes/messages.js'
import { presenceRoutes } from './routes/presence.js'
import { receiptRoutes } from './routes/receipts.js'
import { relationRoutes } from './routes/relations.js'
import { tokenRoutes } from './routes/tokens.js'
import { userRoutes } from './routes/users.js'
import { takeTurns } from './turns.js'
import { boundAnswers } from './unsent-answers.js'

export interface ApiOptions extends Omit<RouteParts, 'jwtSecret' | 'tokenClaims'> {
  config: Pick<Config, 'allowedOrigins'> & Partial<Pick<Config, 'jwtIssuer' | 'jwtAudience' | 'publicUrl' | 'trustedProxies'>>
  secrets: Pick<Secrets, 'jwtSecret' | 'keptIn'>
  authenticator: Authenticator
  logger: Logger
  health: Health
  metrics: Registry
  /** The AsyncAPI document, where this process has a gateway. */
  webSocketDocument?: object
  /** Whether the calls below /v1 are answered here; health, metrics and pages always are. Default true. */
  answersCalls?: boolean
  /** Budgets and turns, which REST shares with the sockets. Default: its own. */
  load?: Load
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Counts the body as it came; 0 until it is read. */
    bodyBytes: number
    /** Counts from the beginning of the request until its body was there. */
    readAtMs: number
  }
}

/** From the request to its answer. What an append has done may take longer to find out than what was asked for to be read. */
const READ_MS_MAX = 6_000
const WRITE_MS_MAX = 10_000

const HEADER_BYTES_MAX = 16 << 10
/** Ids are refused by their schemas, with a problem that says so, long before the router gives up. */
const PARAMETER_CHARACTERS_MAX = 4_096
const KEEP_ALIVE_MS = 72_000
const HEADERS_MS_MAX = 20_000
const REQUEST_MS_MAX = 30_000
const SILENT_CONNECTION_MS_MAX = 120_000

/**
 * For answers that are data; pages have a policy of their own.
 * Transport security is for the proxy in front, and what only old browsers read is left out.
 */
const headers = {
  contentSecurityPolicy: { useDefaults: false, directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] } },
  hsts: false,
  originAgentCluster: false,
  xDnsPrefetchControl: false,
  xDownloadOptions: false,
  xPermittedCrossDomainPolicies: false,
  xXssProtection: false,
}

/** The REST API and the pages around it, not yet listening; the gateway takes the upgrades of its `server`. */
export async function createApi(options: ApiOptions): Promise<FastifyInstance> {
  const { logger, config } = options
  const onError = errorHandler(logger)
  const app = Fastify({
    bodyLimit: BODY_BYTES_MAX,
    connectionTimeout: SILENT_CONNECTION_MS_MAX,
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: REQUEST_MS_MAX,
    http: { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: HEADERS_MS_MAX },
    routerOptions: { maxParamLength: PARAMETER_CHARACTERS_MAX },
    // What is in flight is answered; `health/ready` has said before that nothing more should come.
    return503OnClosing: false,
    trustProxy: config.trustedProxies?.length ? [...config.trustedProxies] : false,
    genReqId: requestIdOf,
    frameworkErrors: onError,
    clientErrorHandler: refuseConnection,
  })
  app.decorate('publicUrl', config.publicUrl ?? '')
  app.setErrorHandler(onError)
  app.setNotFoundHandler(notFoundHandler(app))
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id)
    done()
  })
  app.decorateRequest('bodyBytes', 0)
  readJsonOnly(app)
  validateBySchemas(app)
  await app.register(helmet, headers)
  if (config.allowedOrigins.length > 0) await app.register(cors, corsOptions(new Origins(config.allowedOrigins)))
  await registerOpenApi(app)
  publicRoutes(app, options)
  if (options.answersCalls ?? true) await app.register((v1) => versionOne(v1, options), { prefix: '/v1' })
  return app
}

/** The OpenAPI document, without a server. */
export async function createOpenApiDocument(): Promise<object> {
  // Routes are registered, and none is called: they need no parts.
  const nothing = {} as never
  const app = await createApi({
    config: { allowedOrigins: [] },
    secrets: { jwtSecret: '', keptIn: undefined },
    conversations: nothing,
    users: nothing,
    readModels: nothing,
    presence: nothing,
    store: nothing,
    authenticator: nothing,
    logger: nothing,
    health: nothing,
    metrics: new Registry(),
  })
  await app.ready()
  const document = app.swagger()
  await app.close()
  return document
}

function publicRoutes(app: FastifyInstance, { metrics, health, secrets, webSocketDocument }: ApiOptions): void {
  measureRequests(app, metrics)
  healthRoutes(app, health)
  startPage(app, secrets.keptIn)
  docsRoutes(app)
  if (webSocketDocument) webSocketPage(app, webSocketDocument)
  let document: string | undefined
  app.get('/openapi.json', { schema: { hide: true } }, async (request, reply) =>
    reply
      .type('application/json; charset=utf-8')
      .serializer(String)
      .send(withServer((document ??= JSON.stringify(app.swagger())), publicUrlOf(request))),
  )
}

async function versionOne(v1: FastifyInstance, options: ApiOptions): Promise<void> {
  // Known beforehand, so that all requests have one shape.
  v1.decorateRequest('identity')
  v1.addHook('onRequest', authenticationHook(options.authenticator, options.users.devices, options.logger))
  takeTurns(v1, options.load ?? new Load(), options.conversations)
  boundAnswers(v1)
  v1.addHook('preValidation', requireReadableBody)
  answerInTime(v1)
  const api: Api = v1.withTypeProvider<TypeBoxTypeProvider>()
  const nouns = [
    tokenRoutes,
    userRoutes,
    conversationRoutes,
    memberRoutes,
    messageRoutes,
    messageMarkRoutes,
    eventRoutes,
    receiptRoutes,
    inboxRoutes,
    presenceRoutes,
    relationRoutes,
    deviceRoutes,
  ]
  const { jwtIssuer, jwtAudience } = options.config
  const parts = { ...options, jwtSecret: options.secrets.jwtSecret, tokenClaims: { jwtIssuer, jwtAudience } }
  for (const register of nouns) register(api, parts)
}

/**
 * Bounds the time of a whole call, whose single waits have shorter deadlines. The time begins when the body is there, because a client
 * may take long to send it.
 */
function answerInTime(v1: FastifyInstance): void {
  v1.decorateRequest('readAtMs', 0)
  v1.addHook('preValidation', (request, reply, done) => {
    request.readAtMs = reply.elapsedTime
    done()
  })
  v1.addHook('onRoute', (route) => {
    const { handler } = route
    const isRead = route.method === 'GET' || route.method === 'HEAD'
    const withinMs = isRead ? READ_MS_MAX : WRITE_MS_MAX
    const late = () =>
      isRead ? unavailable('No answer came in time: ask again.') : unavailable('What became of this is not known: send the same again.')
    route.handler = function (request, reply) {
      const answer: unknown = handler.call(this, request, reply)
      return answer instanceof Promise ? withDeadline(answer, Math.max(0, withinMs - (reply.elapsedTime - request.readAtMs)), late) : answer
    }
  })
}

/** JSON, and nothing else. No body is no error here: the schema says whether there must be one. */
function readJsonOnly(app: FastifyInstance): void {
  // Prototypes are refused later, by requireCleanJson, which names the field.
  const parse = app.getDefaultJsonParser('ignore', 'ignore')
  app.removeAllContentTypeParsers()
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    request.bodyBytes = Buffer.byteLength(body)
    // Where there is no such path or method, that is the answer, whatever was sent.
    if (body === '' || request.is404) return done(null, undefined)
    return parse(request, body, (error, value) => {
      if (error) return done(invalidField(WHOLE_BODY, 'is not valid JSON'))
      try {
        requireFaithfulJson(value, body)
      } catch (refusal) {
        return done(refusal as Error)
      }
      done(null, value)
    })
  })
}

/** Bodies are taken as they are; in paths and queries everything is text, and numbers are read from it. */
function validateBySchemas(app: FastifyInstance): void {
  app.setValidatorCompiler(({ schema, httpPart }) => {
    const validate = compileBody(schema)
    return (value: unknown) => {
      if (httpPart !== 'body') readTexts(schema, value as Record<string, unknown>)
      return validate(value) ? { value } : { error: refusalOf(validate.errors) }
    }
  })
}

/** Refuses what no JSON here may carry, and a body that says something where none is read. */
function requireReadableBody(request: FastifyRequest, _reply: unknown, done: (error?: Error) => void): void {
  const { body } = request
  try {
    requireCleanJson(body, WHOLE_BODY)
    if (request.routeOptions.schema?.body === undefined && saysSomething(body))
      throw invalidField(WHOLE_BODY, 'is not read here: leave it out')
    done()
  } catch (error) {
    done(error as Error)
  }
}

const saysSomething = (body: unknown) =>
  body !== undefined && body !== null && (typeof body !== 'object' || Array.isArray(body) || Object.keys(body).length > 0)

const requestIdForm = /^[\w.:@+/=-]{1,128}$/

/** The caller's own where it is a sane one, so that it finds its request in the events and in the log. */
function requestIdOf({ headers }: IncomingMessage): string {
  const given = headers['x-request-id']
  return typeof given === 'string' && requestIdForm.test(given) ? given : randomUUID()
}

const corsOptions = (origins: Origins) => ({
  origin: origins.isOpen
    ? '*'
    : (origin: string | undefined, done: (error: null, isAllowed: boolean) => void) =>
        done(null, origin !== undefined && origins.isAllowed(origin)),
  methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
  allowedHeaders: ['authorization', 'content-type', 'on-behalf-of', 'idempotency-key', 'x-request-id'],
  exposedHeaders: ['x-request-id', 'retry-after', 'allow', 'ratelimit', 'ratelimit-policy'],
  maxAge: 600,
})

/** What is no HTTP at all, or came too slowly: there is no request to answer as usual. */
function refuseConnection(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
  const isLate = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const detail =
    error.code === 'HPE_HEADER_OVERFLOW' ? `Path and headers have at most ${HEADER_BYTES_MAX} bytes.` : 'This is not a valid HTTP request.'
  const body = isLate
    ? ''
    : JSON.stringify({
        type: '/docs/errors#invalid_request',
        title: 'The request is not valid',
        status: 400,
        code: 'invalid_request',
        detail,
        temporary: false,
      })
  const [status, type] = isLate ? ['408 Request Timeout', 'text/plain'] : ['400 Bad Request', 'application/problem+json']
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
