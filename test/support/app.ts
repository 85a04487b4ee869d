import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import { Registry } from 'prom-client'
import { type ApiOptions, createApi } from '../../src/api/api.js'
import { createAuthenticator } from '../../src/auth/authenticator.js'
import { issueToken } from '../../src/auth/tokens.js'
import { type AppKey, appScopes } from '../../src/config.js'
import type { Authenticator } from '../../src/domain/caller.js'
import { Conversations } from '../../src/domain/conversations.js'
import type { EventStore } from '../../src/domain/event-store.js'
import type { Logger } from '../../src/domain/logger.js'
import type { Presence } from '../../src/domain/presence.js'
import { Users } from '../../src/domain/users.js'
import type { ReadModels } from '../../src/projections/read-models.js'
import { type ReadSide, openReadSide, silent } from './read-side.js'
import { type TestPostgres, startTestPostgres } from './postgres.js'

export const JWT_SECRET = 'the-jwt-secret-of-the-tests'
export const secretOf = {
  full: 'secret-of-the-full-app',
  users: 'secret-of-the-users-app',
  act: 'secret-of-the-act-app',
  audit: 'secret-of-the-audit-app',
}

export const appKeys: readonly AppKey[] = [
  { name: 'full', secret: secretOf.full, scopes: new Set(appScopes) },
  { name: 'registrar', secret: secretOf.users, scopes: new Set(['users'] as const) },
  { name: 'bot', secret: secretOf.act, scopes: new Set(['act'] as const) },
  { name: 'auditor', secret: secretOf.audit, scopes: new Set(['audit'] as const) },
]

/** The whole server but its sockets, in this process, on a Postgres of its own. */
export interface TestApp {
  connectionString: string
  api: FastifyInstance
  store: EventStore
  users: Users
  conversations: Conversations
  readModels: ReadModels
  authenticator: Authenticator
  /** What was logged as an error: nothing, after a good run. */
  errors: { details: object; text: string }[]
  stop(): Promise<void>
}

/** Nobody is online here. */
export const nobodyOnline: Presence = {
  query: async (_viewerId, userIds) => userIds.map((userId) => ({ userId, online: false, lastSeenAt: null })),
  ofDevices: async (_userId, deviceIds) => deviceIds.map((deviceId) => ({ deviceId, online: false, lastSeenAt: null })),
}

export async function startTestApp(
  options: Partial<ApiOptions> & { jwksUrl?: string; membersMax?: number; postgres?: TestPostgres } = {},
): Promise<TestApp> {
  const postgres = options.postgres ?? (await startTestPostgres())
  const readSide: ReadSide = await openReadSide(postgres)
  const { connectionString, store, readModels } = readSide
  const errors: TestApp['errors'] = []
  const logger: Logger = { ...silent, error: (details, text) => void errors.push({ details, text }) }
  const users = new Users({ store, snapshots: readModels.snapshots, logger, cacheWeightMax: 32 << 20 })
  const conversations = new Conversations({
    store,
    snapshots: readModels.snapshots,
    history: readModels.history,
    users,
    logger,
    membersMax: options.membersMax ?? 1_200,
    cacheWeightMax: 64 << 20,
  })
  const authenticator = createAuthenticator({ appKeys, jwtSecret: JWT_SECRET, jwksUrl: options.jwksUrl, users, logger })
  const api = await createApi({
    config: { allowedOrigins: [] },
    secrets: { jwtSecret: JWT_SECRET, keptIn: undefined },
    conversations,
    users,
    readModels,
    authenticator,
    presence: nobodyOnline,
    store,
    logger,
    metrics: new Registry(),
    health: { findFault: async () => undefined },
    ...options,
  })
  await api.ready()
  const stop = async () => {
    await api.close()
    await conversations.close()
    await users.close()
    await readSide.close()
    if (!options.postgres) await postgres.stop()
  }
  return { connectionString, api, store, users, conversations, readModels, authenticator, errors, stop }
}

export interface Answer {
  status: number
  headers: LightMyRequestResponse['headers']
  text: string
  // Tests look into answers of every shape.
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any
}

type Call = (path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>

/** Somebody who calls the API. */
export interface TestCaller {
  id: string
  token: string
  get: (path: string, headers?: Record<string, string>) => Promise<Answer>
  post: Call
  put: Call
  patch: Call
  del: Call
  onBehalfOf(userId: string): TestCaller
}

/** One request; `body` is sent as JSON, a string as it is. */
export async function request(
  api: FastifyInstance,
  method: string,
  url: string,
  { body, headers = {} }: { body?: unknown; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const payload = body === undefined ? {} : { payload: typeof body === 'string' ? body : JSON.stringify(body) }
  const type = body === undefined ? {} : { 'content-type': 'application/json' }
  const response = await api.inject({ method: method as 'GET', url, headers: { ...type, ...headers }, ...payload } satisfies InjectOptions)
  return { status: response.statusCode, headers: response.headers, text: response.payload, body: parsed(response.payload) }
}

export function callerWith({ api }: Pick<TestApp, 'api'>, token: string, id = '', own: Record<string, string> = {}): TestCaller {
  const call =
    (method: string) =>
    (path: string, body?: unknown, headers: Record<string, string> = {}) =>
      request(api, method, path, { body, headers: { authorization: `Bearer ${token}`, ...own, ...headers } })
  return {
    id,
    token,
    get: (path, headers) => call('GET')(path, undefined, headers),
    post: call('POST'),
    put: call('PUT'),
    patch: call('PATCH'),
    del: call('DELETE'),
    onBehalfOf: (userId) => callerWith({ api }, token, userId, { ...own, 'on-behalf-of': userId }),
  }
}

let count = 0
/** An id that no other test has. */
export const unique = (prefix: string) => `${prefix}-${process.pid}-${++count}`

/** A user of its own, with a token. */
export async function userOf(app: Pick<TestApp, 'api'>, prefix = 'user', deviceId?: string): Promise<TestCaller> {
  const id = unique(prefix)
  const { token } = await issueToken(JWT_SECRET, { userId: id, deviceId, ttlSeconds: 600 })
  return callerWith(app, token, id)
}

/** A group of the first with the others as members. */
export async function groupOf(owner: TestCaller, ...members: readonly TestCaller[]): Promise<string> {
  const { body } = await owner.post('/v1/conversations', { type: 'group', memberIds: members.map(({ id }) => id) })
  return body.conversationId as string
}

export async function directOf(one: TestCaller, other: TestCaller): Promise<string> {
  return (await one.post('/v1/conversations', { type: 'direct', memberIds: [other.id] })).body.conversationId as string
}

/** Sends a text; gives the answer. */
export async function say(sender: TestCaller, conversationId: string, text: string): Promise<{ seq: number; position: string }> {
  return (
    await sender.post(`/v1/conversations/${conversationId}/messages`, { clientMessageId: unique('m'), content: { type: 'text', text } })
  ).body as { seq: number; position: string }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
