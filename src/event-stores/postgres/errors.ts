import pg from 'pg'
import { StoreUnavailable } from '../../domain/event-store.js'

/** What the store says in its operator's log; a pino logger fits. */
export interface Logger {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export const silentLogger: Logger = { info() {}, warn() {}, error() {} }

/** SQLSTATE classes that say no to the statement itself: its data, a constraint, its text. */
const refused = new Set(['22', '23', '42'])

/** SQLSTATE classes that say something of the server's state and nothing of the statement: later it may work. */
const serverTrouble = new Set(['08', '25', '40', '53', '55', '57', '58', 'XX'])

/**
 * Whether the conversation with the server broke off, so that the statement's end is not known. FATAL and PANIC are such ends:
 * a server whose disk fails in the middle of a commit says PANIC, and may have written it. (Severities are translated,
 * so what is not plainly ERROR counts as broken off.)
 */
export function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof pg.DatabaseError)) return true
  const sqlClass = error.code?.slice(0, 2) ?? ''
  return !refused.has(sqlClass) && (error.severity !== 'ERROR' || sqlClass === '08')
}

/** Whether the same statement may succeed later. */
export function isTransient(error: unknown): boolean {
  return isConnectionLoss(error) || (error instanceof pg.DatabaseError && serverTrouble.has(error.code?.slice(0, 2) ?? ''))
}

/** Runs a read: what may succeed later is thrown as StoreUnavailable. */
export async function reading<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    throw isTransient(error) ? new StoreUnavailable('The log cannot be read now', { cause: error }) : error
  }
}
