import type { ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { Conditions } from '../domain/waits.js'

/** How long what is in flight may take when the server stops, and then how long the answers may that say "not now". */
const ANSWERED_MS_MAX = 1_500
const REFUSED_MS_MAX = 500

/** The requests in flight, and how a server parts from its clients. */
export class Requests {
  readonly #api: FastifyInstance
  readonly #unanswered = new Set<ServerResponse>()
  readonly #answered = new Conditions()
  #isLeaving = false
  #closing: Promise<void> | undefined

  constructor(api: FastifyInstance) {
    this.#api = api
    api.server.on('request', (_request, response: ServerResponse) => {
      this.#unanswered.add(response)
      if (this.#isLeaving) response.setHeader('connection', 'close')
      response.once('close', () => {
        this.#unanswered.delete(response)
        this.#answered.changed()
      })
    })
  }

  /** Closes the connections on which nothing is in flight, and the others with their answers. New ones are answered, and told so too. */
  leave(): void {
    this.#isLeaving = true
    for (const response of this.#unanswered) if (!response.headersSent) response.setHeader('connection', 'close')
    this.#api.server.closeIdleConnections()
  }

  /** Listens no more. */
  #takeNoMore(): void {
    this.leave()
    this.#closing ??= this.#api.close()
    this.#closing.catch(() => undefined)
  }

  /** Waits for the answers to what is in flight, then, having called `giveUp`, for a moment more, and closes every connection. */
  async end(giveUp: () => void): Promise<void> {
    this.#takeNoMore()
    const isDone = () => this.#unanswered.size === 0
    if (!(await this.#answered.until(isDone, ANSWERED_MS_MAX))) {
      giveUp()
      await this.#answered.until(isDone, REFUSED_MS_MAX)
    }
    // Half a request too, and an answer that nobody reads.
    this.#api.server.closeAllConnections()
    await this.#closing
  }
}
