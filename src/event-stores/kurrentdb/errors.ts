import { ErrorType } from '@eventstore/db-client'
import { StoreUnavailable } from '../../domain/event-store.js'

/** What says no to the request itself: to ask again would not help. */
const refusals = new Set<unknown>([
  ErrorType.ACCESS_DENIED,
  ErrorType.STREAM_DELETED,
  ErrorType.STREAM_NOT_FOUND,
  ErrorType.INVALID_ARGUMENT,
])
const grpcInvalidArgument = 3
const grpcPermissionDenied = 7

/**
 * Whether the same request may succeed later. All but plain refusals count: that the server is not ready, too busy or no leader
 * comes as an "unknown" error, and a failed discovery as an Error with nothing but a text.
 */
export function isTransient(error: unknown): boolean {
  const { type, code } = error as { type?: unknown; code?: unknown }
  return !refusals.has(type) && code !== grpcInvalidArgument && code !== grpcPermissionDenied && !isInvalidPosition(error)
}

/** Whether a read was to begin at a place where nothing begins: a forged one, or one of another log. */
export function isInvalidPosition(error: unknown): boolean {
  return error instanceof Error && /InvalidPosition|invalid position/.test(error.message)
}

/** Whether a call ended before it had a connection to go out by. */
export function isNotSent(error: unknown): boolean {
  const { details } = error as { details?: unknown }
  return typeof details === 'string' && /^(No connection established|Name resolution failed)/.test(details)
}

export function toStoreError(error: unknown): unknown {
  if (error instanceof StoreUnavailable || !isTransient(error)) return error
  return new StoreUnavailable('The log cannot be read now', { cause: error })
}
