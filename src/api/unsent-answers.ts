import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { bytesTakenOf } from '../bytes-taken.js'
import { Refusal } from '../domain/errors.js'
import { BODY_BYTES_MAX } from '../schemas/common.js'
import { announcedBytesOf } from './turns.js'

/** Bounds the requests and answers of one caller. Each counts from its beginning until the client has taken the answer. */
export const USER_ANSWERS_BYTES_MAX = 16 << 20
/** Bounds those of all callers of this node. Over it those who hold most are refused, over twice as much everybody. */
export const NODE_ANSWERS_BYTES_MAX = 128 << 20
/** An answer counts for so much until it is there. */
const ANSWER_BYTES = 4 << 10
const PAGE_BYTES = 512 << 10
/** Operations whose answers are pages of content. */
const PAGES = new Set(['listEvents', 'listMessages'])
/** A client that takes nothing of its answer for so long is cut off. */
export const STALLED_ANSWER_MS_MAX = 30_000
const LOOK_MS = 1_000
const RETRY_AFTER_MS = 2_000

/** An answer on its way. */
interface Answer {
  caller: string
  bytes: number
  socket: Socket
  isSent: boolean
  taken: number
  movedAt: number
}

/** Counts requests in hand and what waits for clients to read it, in bytes. A caller over its bound is refused before any work is done for it. */
export class UnsentAnswers {
  readonly #ofCallers = new Map<string, number>()
  readonly #ofSockets = new Map<Socket, Set<Answer>>()
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** Makes room for an answer to be. @throws {Refusal} rate_limited */
  expect(caller: string, bytes: number, socket: Socket): Answer {
    const own = (this.#ofCallers.get(caller) ?? 0) + bytes
    if (own > USER_ANSWERS_BYTES_MAX || this.#isTooMuch(own, bytes))
      throw new Refusal(
        'rate_limited',
        'Too much is asked for at once, or answered and not read: read the answers, and send this again in a moment.',
        {
          retryAfterMs: RETRY_AFTER_MS,
        },
      )
    const answer: Answer = { caller, bytes: 0, socket, isSent: false, taken: -1, movedAt: 0 }
    this.#count(answer, bytes)
    const ofSocket = this.#ofSockets.get(socket)
    if (ofSocket) ofSocket.add(answer)
    else {
      this.#ofSockets.set(socket, new Set([answer]))
      socket.once('close', () => {
        for (const left of this.#ofSockets.get(socket) ?? []) this.#count(left, -left.bytes)
        this.#ofSockets.delete(socket)
      })
    }
    return answer
  }

  /** Corrects what a request and its answer count for, now that more is known. */
  expectNow(answer: Answer, bytes: number): void {
    if (this.#ofSockets.get(answer.socket)?.has(answer)) this.#count(answer, bytes - answer.bytes)
  }

  /** What it has come to. */
  sent(answer: Answer, bytes: number, now: number): void {
    if (!this.#ofSockets.get(answer.socket)?.has(answer)) return
    this.#count(answer, bytes - answer.bytes)
    answer.isSent = true
    answer.movedAt = now
  }

  /** The client has taken it. */
  taken(answer: Answer): void {
    if (this.#ofSockets.get(answer.socket)?.delete(answer)) this.#count(answer, -answer.bytes)
  }

  /** Cuts off clients that take nothing of what was sent to them. */
  cutStalled(now: number): void {
    for (const [socket, answers] of this.#ofSockets) {
      const [first] = answers
      if (!first?.isSent) continue
      const taken = bytesTakenOf(socket)
      if (taken !== first.taken) {
        first.taken = taken
        first.movedAt = now
      } else if (now - first.movedAt >= STALLED_ANSWER_MS_MAX) socket.destroy()
    }
  }

  #isTooMuch(own: number, bytes: number): boolean {
    const sum = this.#bytes + bytes
    return sum > NODE_ANSWERS_BYTES_MAX * 2 || (sum > NODE_ANSWERS_BYTES_MAX && own > sum / Math.max(1, this.#ofCallers.size))
  }

  #count(answer: Answer, bytes: number): void {
    answer.bytes += bytes
    this.#bytes += bytes
    const left = (this.#ofCallers.get(answer.caller) ?? 0) + bytes
    if (left > 0) this.#ofCallers.set(answer.caller, left)
    else this.#ofCallers.delete(answer.caller)
  }
}

/** Holds every call of these routes to the bounds. Must be registered after `takeTurns`: it counts by who pays. */
export function boundAnswers(app: FastifyInstance, answers = new UnsentAnswers()): void {
  const expected = new WeakMap<FastifyRequest, Answer>()
  app.addHook('onRequest', (request, reply, done) => {
    try {
      const answer = answers.expect(request.account!.key, bodyBytesOf(request) + answerBytesOf(request), request.raw.socket)
      expected.set(request, answer)
      reply.raw.once('close', () => answers.taken(answer))
      done()
    } catch (error) {
      done(error as Error)
    }
  })
  app.addHook('preValidation', (request, _reply, done) => {
    const answer = expected.get(request)
    if (answer) answers.expectNow(answer, request.bodyBytes + answerBytesOf(request))
    done()
  })
  app.addHook(
    'onSend',
    (request: FastifyRequest, _reply: FastifyReply, payload: unknown, done: (error?: null, payload?: unknown) => void) => {
      const answer = expected.get(request)
      if (answer) answers.sent(answer, typeof payload === 'string' || Buffer.isBuffer(payload) ? payload.length : 0, performance.now())
      done(null, payload)
    },
  )
  const looking = setInterval(() => answers.cutStalled(performance.now()), LOOK_MS)
  looking.unref()
  app.addHook('onClose', (_app, done) => {
    clearInterval(looking)
    done()
  })
}

/** A body that comes in chunks may be as large as any until it is there. */
function bodyBytesOf(request: FastifyRequest): number {
  if (request.headers['transfer-encoding'] !== undefined) return BODY_BYTES_MAX
  return Math.min(BODY_BYTES_MAX, announcedBytesOf(request))
}

const answerBytesOf = ({ routeOptions }: FastifyRequest): number =>
  PAGES.has(routeOptions.schema?.operationId ?? '') ? PAGE_BYTES : ANSWER_BYTES
