/** Who calls: a user by its token, or an app by its secret, perhaps for a user. */
import type { FastifyRequest } from 'fastify'
import { type Authenticator, type Identity, type Scope, actorOf } from '../domain/caller.js'
import type { Reader } from '../domain/conversations.js'
import type { Devices } from '../domain/devices.js'
import { Refusal, invalidField, isOutage } from '../domain/errors.js'
import { isUserId } from '../domain/ids.js'
import type { Logger } from '../domain/logger.js'
import type { Requester } from '../domain/write-path/streams.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the first hook of every path below /v1. */
    identity: Identity
  }
}

/** A user who acts, by itself or through an app. */
export interface ActingUser {
  userId: string
  requester: Requester
}

const bearer = /^Bearer +([\x21-\x7e]+) *$/i

/** The hook that authenticates, and notes the device whose token is used. */
export function authenticationHook(authenticator: Authenticator, devices: Pick<Devices, 'use'>, logger: Logger) {
  // No request waits for that, and none fails with it.
  const note = ({ identity, id }: FastifyRequest): void => {
    if (identity.kind !== 'user' || identity.deviceId === null) return
    const { userId, deviceId, issuedAt } = identity
    devices.use(userId, deviceId, issuedAt, { actor: actorOf(userId), correlationId: id })?.catch((error: unknown) => {
      if (!isOutage(error)) logger.warn({ err: error }, 'a device was not noted')
    })
  }
  return (request: FastifyRequest, _reply: unknown, done: (error?: Error) => void): void => {
    const token = bearer.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined) return done(new Refusal('unauthenticated', 'Send a token or an app secret: "Authorization: Bearer …".'))
    authenticator.authenticate(token).then((identity) => {
      request.identity = identity
      note(request)
      done()
    }, done)
  }
}

/** The user who calls, or for whom the app calls. @throws {Refusal} forbidden, invalid_request */
export function actingUser(request: FastifyRequest): ActingUser {
  const { identity, id: correlationId } = request
  const named = onBehalfOf(request)
  if (identity.kind === 'user') return { userId: identity.userId, requester: { actor: actorOf(identity.userId), correlationId } }
  requireScope(identity, 'act')
  if (named === undefined) throw invalidField('On-Behalf-Of', 'is missing: an app names the user for whom it makes this call')
  return { userId: named, requester: { actor: actorOf(named, identity.app), correlationId } }
}

/** A conversation's reader: a user, or an app that audits. @throws {Refusal} forbidden, invalid_request */
export function reader(request: FastifyRequest): Reader {
  const { identity } = request
  if (identity.kind === 'app' && onBehalfOf(request) === undefined && identity.scopes.has('audit')) return { audit: true }
  return { userId: actingUser(request).userId }
}

/** Lets an app with the scope pass, and nobody else. @throws {Refusal} forbidden */
export function requireApp(request: FastifyRequest, scope: Scope): string {
  const { identity } = request
  onBehalfOf(request)
  if (identity.kind === 'user') throw new Refusal('forbidden', `Only an app with the scope "${scope}" does this.`)
  requireScope(identity, scope)
  return identity.app
}

/** Who may see profiles: every user, and apps with the scope. @throws {Refusal} forbidden, invalid_request */
export function requireProfileReader(request: FastifyRequest): void {
  if (request.identity.kind === 'app' && onBehalfOf(request) === undefined) requireApp(request, 'users')
  else actingUser(request)
}

/** Who may write this profile: the user itself, and apps with the scope. @throws {Refusal} forbidden, invalid_request */
export function profileWriter(request: FastifyRequest, userId: string): Requester {
  const { identity } = request
  if (identity.kind === 'app' && onBehalfOf(request) === undefined)
    return { actor: { app: requireApp(request, 'users') }, correlationId: request.id }
  const acting = actingUser(request)
  if (acting.userId !== userId && !(identity.kind === 'app' && identity.scopes.has('users')))
    throw new Refusal('forbidden', 'A user writes no profile but its own.')
  return acting.requester
}

function onBehalfOf({ identity, headers }: FastifyRequest): string | undefined {
  const named = headers['on-behalf-of']
  if (named === undefined) return undefined
  if (identity.kind === 'user') throw invalidField('On-Behalf-Of', "goes with an app's secret only: a user's token speaks for its user")
  if (typeof named !== 'string' || !isUserId(named)) throw invalidField('On-Behalf-Of', 'is not a user id')
  return named
}

function requireScope(identity: Extract<Identity, { kind: 'app' }>, scope: Scope): void {
  if (!identity.scopes.has(scope)) throw new Refusal('forbidden', `The app "${identity.app}" has not the scope "${scope}": see APP_KEYS.`)
}
