/** Every error as RFC 9457 `application/problem+json`, from the one table of refusals. */
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Refusal, invalidField, refusals } from '../domain/errors.js'
import { AppendOutcomeUnknown, StoreUnavailable } from '../domain/event-store.js'
import type { Logger } from '../domain/logger.js'
import { BODY_BYTES_MAX } from '../schemas/common.js'

export const PROBLEM_TYPE = 'application/problem+json'
const RETRY_AFTER_MS = 1_000
/** A refused body up to this size is read to its end, so that the sender can read the answer; beyond it the connection closes. */
const DRAINED_BYTES_MAX = 8 << 20

declare module 'fastify' {
  interface FastifyInstance {
    /** Where clients reach this server, see PUBLIC_URL; empty: not said. */
    publicUrl: string
  }
}

/** `GET /docs/errors` lists them. */
export const problemTypeOf = (code: string, publicUrl = '') => `${publicUrl}/docs/errors#${code}`

/** The body of a refusal. */
export function problemOf({ code, message, errors }: Refusal, publicUrl?: string) {
  const { status, title, temporary } = refusals[code]
  return {
    type: problemTypeOf(code, publicUrl),
    title,
    status,
    code,
    detail: message,
    temporary,
    ...(errors === undefined ? {} : { errors }),
  }
}

/** Answers with a refusal. */
export function sendProblem(reply: FastifyReply, refusal: Refusal): FastifyReply {
  const { status, temporary } = refusals[refusal.code]
  if (temporary) reply.header('retry-after', Math.max(1, Math.ceil((refusal.retryAfterMs ?? RETRY_AFTER_MS) / 1_000)))
  if (refusal.code === 'unauthenticated') reply.header('www-authenticate', 'Bearer')
  // A string: the schemas of the answers are those of successes.
  return reply
    .code(status)
    .header('content-type', PROBLEM_TYPE)
    .serializer(String)
    .send(JSON.stringify(problemOf(refusal, reply.server.publicUrl)))
}

/** The only place where an error becomes an answer. */
export function errorHandler(logger: Logger) {
  return (error: unknown, request: FastifyRequest, reply: FastifyReply): void => {
    const refusal = refusalOfError(error)
    if (refusal.code === 'internal') {
      logger.error(
        { err: refusal.cause ?? error, correlationId: request.id, method: request.method, route: request.routeOptions.url },
        'a request failed: this is a bug',
      )
    }
    // Fastify closes the connection after a body that it refuses; the sender may not have read the answer by then.
    if (Number(request.headers['content-length']) <= DRAINED_BYTES_MAX) reply.removeHeader('connection')
    void sendProblem(reply, refusal)
  }
}

function refusalOfError(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  if (error instanceof StoreUnavailable || error instanceof AppendOutcomeUnknown)
    return new Refusal('unavailable', 'The log can not answer now: send the same again.', { cause: error })
  const { code, statusCode = 500, message } = error as Partial<FastifyError>
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new Refusal('payload_too_large', `A body has at most ${BODY_BYTES_MAX} bytes.`)
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new Refusal('unsupported_media_type', 'A body is read as application/json only: say so in Content-Type.')
    case 'FST_ERR_BAD_URL':
      return invalidField('path', 'is not percent-encoded UTF-8')
    default:
      if (statusCode >= 400 && statusCode < 500) return new Refusal('invalid_request', message ?? 'The request is not valid.')
      return new Refusal('internal', 'The server has failed at this request: it is a bug.', { cause: error })
  }
}

/** What to answer where no route fits: 404, 405 with the methods that there are, or what OPTIONS asks for. */
export function notFoundHandler(app: FastifyInstance): (request: FastifyRequest, reply: FastifyReply) => FastifyReply {
  const paths = new Map<string, { pattern: RegExp; methods: Set<string> }>()
  app.addHook('onRoute', ({ url, method }) => {
    // What answers the preflights of browsers, on every path.
    if (url === '*') return
    let path = paths.get(url)
    if (!path)
      paths.set(
        url,
        (path = { pattern: new RegExp(`^${url.replaceAll('.', '\\.').replace(/:[A-Za-z]+/g, '[^/]+')}$`), methods: new Set(['OPTIONS']) }),
      )
    for (const one of [method].flat()) path.methods.add(one)
  })
  return (request, reply) => {
    const path = request.url.split('?', 1)[0]!
    const methods = [...paths.values()].filter(({ pattern }) => pattern.test(path)).flatMap((found) => [...found.methods])
    if (methods.length === 0)
      return sendProblem(reply, new Refusal('not_found', 'There is no such path: see /docs for those that there are.'))
    const allowed = [...new Set(methods)].sort().join(', ')
    reply.header('allow', allowed)
    if (request.method === 'OPTIONS') return reply.code(204).send()
    return sendProblem(reply, new Refusal('method_not_allowed', `This path takes ${allowed}.`))
  }
}
