/** Every call below /v1 is charged to its caller, waits for its turn, and says what is left. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Conversations } from '../domain/conversations.js'
import { isUserId } from '../domain/ids.js'
import type { Account } from '../load/account.js'
import {
  COLD_LOAD_UNITS,
  REQUEST_UNITS,
  answerUnits,
  contentUnits,
  conversationsUnits,
  operationUnits,
  operationsOverAllConversations,
  waitingRequestBytes,
} from '../load/costs.js'
import type { Load } from '../load/load.js'
import type { Turn } from '../load/turns.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who pays; set once the caller is known. */
    account: Account | null
    turn: Turn | null
    /** Units that the body has been charged. */
    bodyUnits: number
  }
}

/** Must be registered after the hook that authenticates. */
export function takeTurns(v1: FastifyInstance, load: Load, conversations: Pick<Conversations, 'isInMemory'>): void {
  v1.decorateRequest('account', null)
  v1.decorateRequest('turn', null)
  v1.decorateRequest('bodyUnits', 0)

  // Before the body is read.
  v1.addHook('onRequest', (request, _reply, done) => {
    const account = payerOf(request, load)
    request.account = account
    try {
      request.bodyUnits = contentUnits(announcedBytesOf(request))
      load.admit(account, REQUEST_UNITS + request.bodyUnits)
      done()
    } catch (error) {
      done(error as Error)
    }
  })

  v1.addHook('preHandler', (request, _reply, done) => {
    const account = request.account!
    chargeBody(request, account, load)
    const units = unitsOf(request, account, conversations)
    load.charge(account, units)
    const all = REQUEST_UNITS + request.bodyUnits + units
    request.turn = load.turns.tryBegin(account, all) ?? null
    if (request.turn) return done()
    try {
      load.turns.wait(account, {
        units: all,
        bytes: waitingRequestBytes(request.bodyBytes),
        begin: (turn) => {
          request.turn = turn
          done()
        },
        isGone: () => request.raw.socket.destroyed,
        drop: done,
      })
    } catch (error) {
      done(error as Error)
    }
  })

  v1.addHook('onSend', (request, reply, payload, done) => {
    endTurn(request, load)
    if (request.account) {
      chargeBody(request, request.account, load)
      tellBudget(request.account, reply, payload, load)
    }
    done()
  })
  // Where nothing was sent because the caller has gone.
  v1.addHook('onResponse', (request, _reply, done) => {
    endTurn(request, load)
    done()
  })
}

function endTurn(request: FastifyRequest, load: Load): void {
  if (request.turn) load.turns.end(request.turn)
  request.turn = null
}

/** A user pays for what is done in its name, by itself or by an app that may; an app for what it does as itself, and for what it may not. */
function payerOf({ identity, headers }: FastifyRequest, load: Load): Account {
  if (identity.kind === 'user') return load.ofUser(identity.userId)
  const named = identity.scopes.has('act') ? headers['on-behalf-of'] : undefined
  return typeof named === 'string' && isUserId(named) ? load.ofUser(named) : load.ofApp(identity.app)
}

/** A body that comes in chunks does not say before how large it is: it is charged once it is there, also where it is then refused. */
function chargeBody(request: FastifyRequest, account: Account, load: Load): void {
  const more = contentUnits(request.bodyBytes) - request.bodyUnits
  if (more <= 0) return
  request.bodyUnits += more
  load.charge(account, more)
}

/** The length of the body as the client says it; 0 where it does not. */
export const announcedBytesOf = ({ headers }: FastifyRequest): number => Number(headers['content-length'] ?? 0) || 0

function unitsOf(request: FastifyRequest, account: Account, conversations: Pick<Conversations, 'isInMemory'>): number {
  const operation = request.routeOptions.schema?.operationId ?? ''
  const { conversationId } = request.params as { conversationId?: string }
  const shape = operationUnits[operation]?.(request) ?? 0
  const all = operationsOverAllConversations.has(operation) ? conversationsUnits(account.conversations) : 0
  return shape + all + (conversationId !== undefined && !conversations.isInMemory(conversationId) ? COLD_LOAD_UNITS : 0)
}

/** `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers. */
function tellBudget(account: Account, reply: FastifyReply, payload: unknown, load: Load): void {
  if (typeof payload === 'string') load.charge(account, answerUnits(payload.length))
  const name = account.isUser ? 'user' : 'app'
  reply.header('ratelimit-policy', `"${name}";q=${account.unitsPerSecond};w=1`)
  reply.header('ratelimit', `"${name}";r=${Math.max(0, Math.floor(account.unitsLeft))};t=${account.secondsToFull}`)
}
