/** The logger of a process, and the one way in which an error is put into words: foreign ones carry URLs with passwords. */
import { type Logger, pino } from 'pino'

export type { Logger }

/** JSON lines on the standard output. */
export const createLogger = (level: string): Logger => pino({ level, serializers: { err: describeError } })

const CAUSES_MAX = 3

export interface DescribedError {
  type: string
  message: string
  code?: string
  stack?: string
  cause?: DescribedError
}

/** What may be told of an error. Its other properties are the business of whoever made it, and may hold anything. */
export function describeError(error: unknown, depth = 0): DescribedError {
  if (!(error instanceof Error)) return { type: typeof error, message: redact(String(error)) }
  const { name, message, stack, cause } = error
  const { code } = error as { code?: unknown }
  return {
    type: name,
    message: redact(message),
    ...(typeof code === 'string' || typeof code === 'number' ? { code: String(code) } : {}),
    ...(stack === undefined ? {} : { stack: redact(stack) }),
    ...(cause === undefined || depth >= CAUSES_MAX ? {} : { cause: describeError(cause, depth + 1) }),
  }
}

/** The same as text, for a terminal. */
export function errorText(error: unknown): string {
  const { type, message, stack, cause } = describeError(error)
  const lines = [stack ?? `${type}: ${message}`]
  for (let one = cause; one; one = one.cause) lines.push(`caused by ${one.stack ?? `${one.type}: ${one.message}`}`)
  return lines.join('\n')
}

/** From the scheme to the last @: a password may hold slashes and whatever else. */
const CREDENTIALS = /([a-z][a-z\d+.-]*:\/\/)[^\s"'<>]*@/gi
const SECRET_PARAMETERS = /([?&][\w-]*(?:password|passwd|secret|token|passphrase)[\w-]*=)[^&\s"'<>]*/gi

/** A text without the secrets of the URLs in it. */
export const redact = (text: string): string => text.replace(CREDENTIALS, '$1***@').replace(SECRET_PARAMETERS, '$1***')
