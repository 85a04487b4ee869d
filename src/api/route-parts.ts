/** What the routes are made of, and the few things that many of them do. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyRequest,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { TokenClaims } from '../auth/user-tokens.js'
import type { Conversations, OpenConversation, Reader } from '../domain/conversations.js'
import { Refusal, type RefusalCode, invalidField } from '../domain/errors.js'
import type { EventStore, Position } from '../domain/event-store.js'
import { READ_WAIT_MS_MAX } from '../domain/waits.js'
import type { Presence } from '../domain/presence.js'
import type { Users } from '../domain/users.js'
import type { ReadQueries } from '../projections/read-models.js'
import { PAGE_BYTES_MAX, PAGE_DEFAULT } from '../schemas/common.js'
import { requireBytes } from '../schemas/validator.js'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What it can be refused with beside what every call can; for the OpenAPI document. */
    refusals?: readonly RefusalCode[]
    /** Headers it takes beside those of every call; for the OpenAPI document. */
    idempotencyKey?: boolean
  }
}

export type Api = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

export interface RouteParts {
  conversations: Conversations
  users: Users
  readModels: ReadQueries
  presence: Presence
  store: Pick<EventStore, 'confirms'>
  /** The live feed that keeps the folded states of this node current. Default: this node writes alone. */
  feed?: { reached(position: Position, withinMs?: number): Promise<void> } | undefined
  jwtSecret: string
  /** The claims that every token here must have. */
  tokenClaims?: TokenClaims | undefined
}

export interface PageParameters {
  cursor?: string
  limit?: number
}

export const pageOptions = ({ cursor, limit = PAGE_DEFAULT }: PageParameters) => ({ cursor, limit, bytesMax: PAGE_BYTES_MAX })

/**
 * Waits until tables and states show what was written at `minPosition`, on whichever node.
 * @throws {Refusal} invalid_request where it is no position of this log, unavailable
 */
export function shown(parts: RouteParts, minPosition: string | undefined): Promise<void> | undefined {
  if (minPosition === undefined) return undefined
  return requirePosition(parts, minPosition).then(() => arrived(parts, minPosition))
}

async function arrived({ readModels, feed }: RouteParts, minPosition: Position): Promise<void> {
  // First the tables: they give up where they do not get there in time, and past them the feed is sure to.
  const giveUpAt = performance.now() + READ_WAIT_MS_MAX
  await readModels.waitFor(minPosition)
  await feed?.reached(minPosition, Math.max(0, giveUpAt - performance.now()))
}

/** A conversation by its log, whose end is known here: only what was written elsewhere has to be waited for. @throws {Refusal} */
export async function openShown(
  parts: RouteParts,
  conversationId: string,
  who: Reader,
  minPosition: string | undefined,
): Promise<OpenConversation> {
  if (minPosition === undefined) return parts.conversations.open(conversationId, who)
  await requirePosition(parts, minPosition)
  // Where the write was another node's, a refusal may be of the past as well.
  const opened = await parts.conversations.open(conversationId, who).catch(unlessNotFound)
  if (opened && opened.position >= minPosition) return opened
  await arrived(parts, minPosition)
  return parts.conversations.open(conversationId, who)
}

function unlessNotFound(error: unknown): undefined {
  if (!(error instanceof Refusal && error.code === 'not_found')) throw error
}

/** A position that the log does not confirm is refused before anybody waits for it: it may be of a place that is never reached. */
async function requirePosition({ store }: RouteParts, minPosition: string): Promise<void> {
  if (!(await store.confirms(minPosition)))
    throw invalidField('minPosition', 'is not a position of this log: leave it out, or take the `position` of a write')
}

/** A write's answer. */
export const written = ({ seq, position, unchanged }: { seq: number; position: string; unchanged: boolean }) =>
  unchanged ? { seq, position, unchanged } : { seq, position }
export const positioned = ({ position, unchanged }: { position: string; unchanged: boolean }) =>
  unchanged ? { position, unchanged } : { position }

/** As JSON a value has at most this many times the bytes that it was sent in: `1e9` becomes `1000000000`. */
const GROWTH_MAX = 8

/** Before the schema, which counts characters: what has too many bytes is `payload_too_large` whatever else is wrong with it. */
export const boundedBytes =
  (field: string, bytesMax: number) =>
  ({ headers, body }: FastifyRequest, _reply: unknown, done: (error?: Error) => void): void => {
    try {
      if (!(Number(headers['content-length']) * GROWTH_MAX <= bytesMax))
        requireBytes((body as Record<string, unknown> | null | undefined)?.[field], bytesMax, field)
      done()
    } catch (error) {
      done(error as Error)
    }
  }

/** Answers whose content is free: their schemas describe, and JSON.stringify writes them. */
export const asIs = () => (value: unknown) => JSON.stringify(value)
