import { AppendOutcomeUnknown, StoreUnavailable } from './event-store.js'

/**
 * The one table of everything a client can be refused with, the same over HTTP and WebSocket.
 * `temporary` means: send the very same thing again later.
 */
export const refusals = {
  invalid_request: { status: 400, title: 'The request is not valid', temporary: false },
  unauthenticated: { status: 401, title: 'A valid token is needed', temporary: false },
  forbidden: { status: 403, title: 'The scope or role does not allow it', temporary: false },
  blocked: { status: 403, title: 'One side has blocked the other', temporary: false },
  conversation_frozen: { status: 403, title: 'The conversation is frozen', temporary: false },
  not_found: { status: 404, title: 'There is no such thing for you', temporary: false },
  method_not_allowed: { status: 405, title: 'This path has no such method', temporary: false },
  direct_conversation: { status: 409, title: 'A direct conversation does not allow it', temporary: false },
  idempotency_conflict: { status: 409, title: 'The same id was used for other content', temporary: false },
  already_recalled: { status: 409, title: 'The message was recalled', temporary: false },
  payload_too_large: { status: 413, title: 'Too many bytes', temporary: false },
  unsupported_media_type: { status: 415, title: 'Only application/json is read', temporary: false },
  rate_limited: { status: 429, title: 'Too many requests', temporary: true },
  unavailable: { status: 503, title: 'No answer can be given now', temporary: true },
  internal: { status: 500, title: 'A bug in the server', temporary: false },
} as const

export type RefusalCode = keyof typeof refusals

export interface FieldError {
  field: string
  message: string
}

/** A clear no to a client: a row of the table, and a sentence that says what to do. */
export class Refusal extends Error {
  readonly code: RefusalCode
  readonly errors: readonly FieldError[] | undefined
  readonly retryAfterMs: number | undefined

  constructor(code: RefusalCode, detail: string, more: { errors?: readonly FieldError[]; retryAfterMs?: number; cause?: unknown } = {}) {
    super(detail, more.cause === undefined ? undefined : { cause: more.cause })
    this.code = code
    this.errors = more.errors
    this.retryAfterMs = more.retryAfterMs
  }

  get temporary(): boolean {
    return refusals[this.code].temporary
  }
}

/** `invalid_request` that names one field. */
export const invalidField = (field: string, message: string) =>
  new Refusal('invalid_request', `${field}: ${message}`, { errors: [{ field, message }] })

/** The same answer for what does not exist and for what is none of the caller's business. */
export const notFound = (what = 'conversation') =>
  new Refusal('not_found', `There is no such ${what}, or you are not a member of its conversation.`)

export const unavailable = (detail: string, cause?: unknown) => new Refusal('unavailable', detail, { cause })

/** Whether something that is needed is away for now; it has said so in the operator's log by itself, once, and says when it is back. */
export const isOutage = (error: unknown) =>
  error instanceof StoreUnavailable || error instanceof AppendOutcomeUnknown || (error instanceof Refusal && error.temporary)

/** Makes the compiler count the cases of a switch. */
export function unreachable(value: never): never {
  throw new Error(`not a known case: ${JSON.stringify(value)}`)
}
