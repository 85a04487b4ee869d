import { conversationRoutes } from '../../src/api/routes/conversations.js'
import { eventRoutes } from '../../src/api/routes/events.js'
import { inboxRoutes } from '../../src/api/routes/inbox.js'
import { memberRoutes } from '../../src/api/routes/members.js'
import { messageMarkRoutes } from '../../src/api/routes/message-marks.js'
import { messageRoutes } from '../../src/api/routes/messages.js'
import { receiptRoutes } from '../../src/api/routes/receipts.js'
import type { Api, RouteParts } from '../../src/api/route-parts.js'

export interface Call {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** As the route is declared: `/conversations/:conversationId/events`. */
  path: string
  params?: Record<string, string | number>
  query?: Record<string, unknown>
  body?: object
  userId: string
}

type Handler = (request: object, reply: object) => unknown

/**
 * REST without HTTP: the handlers of the real routes, called with what fastify would hand them after it has parsed and checked
 * a request. What an answer is, is what they give or send.
 */
export class Rest {
  readonly #handlers = new Map<string, Handler>()
  #requests = 0

  constructor(parts: RouteParts) {
    const take =
      (method: Call['method']) =>
      (path: string, ...rest: unknown[]) =>
        this.#handlers.set(`${method} ${path}`, rest.at(-1) as Handler)
    const app = {
      get: take('GET'),
      post: take('POST'),
      put: take('PUT'),
      patch: take('PATCH'),
      delete: take('DELETE'),
      route: ({ method, url, handler }: { method: string; url: string; handler: Handler }) =>
        this.#handlers.set(`${method} ${url}`, handler),
    }
    for (const routes of [conversationRoutes, eventRoutes, inboxRoutes, memberRoutes, messageMarkRoutes, messageRoutes, receiptRoutes])
      routes(app as unknown as Api, parts)
  }

  /** @throws {Refusal} */
  async call({ method, path, params = {}, query = {}, body, userId }: Call): Promise<unknown> {
    const handler = this.#handlers.get(`${method} ${path}`)
    if (!handler) throw new Error(`there is no route ${method} ${path}`)
    let sent: unknown
    const reply = {
      code: () => reply,
      type: () => reply,
      header: () => reply,
      headers: () => reply,
      serializer: () => reply,
      send: (answer: unknown) => {
        sent = answer
        return reply
      },
    }
    const identity = { kind: 'user', userId, deviceId: null, issuedAt: Date.now(), expiresAt: Infinity }
    const request = { params, query, body, identity, id: `request-${(this.#requests += 1)}`, headers: {}, log: {} }
    const given = await handler(request, reply)
    const answer = given === reply ? sent : given
    return typeof answer === 'string' ? (JSON.parse(answer) as unknown) : answer
  }
}
