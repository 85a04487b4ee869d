import { Ajv, type ErrorObject, type Options, type ValidateFunction } from 'ajv'
import type { TSchema } from 'typebox'
import { type FieldError, Refusal, invalidField } from '../domain/errors.js'

const options: Options = {
  strict: true,
  strictTypes: false,
  strictRequired: false,
  discriminator: true,
  allErrors: false,
  formats: { 'http-url': isHttpUrl, utf8_32: isTextOfAtMost32Bytes },
}

const ajv = new Ajv(options)

function isHttpUrl(text: string): boolean {
  return /^https?:\/\/[^\s]+$/i.test(text) && URL.canParse(text)
}

function isTextOfAtMost32Bytes(text: string): boolean {
  return Buffer.byteLength(text) <= 32 && !text.includes('\0') && text.isWellFormed()
}

/** Compiles a schema for JSON values. */
export const compileBody = (schema: TSchema | object): ValidateFunction => ajv.compile(schema)

/** No hexadecimal, exponent, blank or Infinity, all of which Number() reads; and what has more digits is out of every bound. */
const wholeNumber = /^-?\d{1,16}$/

/** Whole numbers and booleans of path and query parameters, where everything is text, are read in place; what is neither is left to the schema. */
export function readTexts(schema: TSchema | object, texts: Record<string, unknown>): void {
  const { properties = {} } = schema as { properties?: Record<string, { type?: unknown }> }
  for (const [name, { type }] of Object.entries(properties)) {
    const text = texts[name]
    if (typeof text !== 'string') continue
    if (type === 'integer' && wholeNumber.test(text)) texts[name] = Number(text)
    if (type === 'boolean' && (text === 'true' || text === 'false')) texts[name] = text === 'true'
  }
}

/** The first thing that is wrong as `invalid_request`, naming the field. */
export function refusalOf(errors: readonly ErrorObject[] | null | undefined): Refusal {
  const fields = (errors ?? []).map(fieldError)
  const [first] = fields
  return new Refusal('invalid_request', first ? `${first.field}: ${first.message}` : 'The request is not valid.', { errors: fields })
}

function fieldError(error: ErrorObject): FieldError {
  const at = error.instancePath.slice(1).replaceAll('/', '.')
  const named = error.params as { missingProperty?: string; additionalProperty?: string; tag?: string }
  const inner = named.missingProperty ?? named.additionalProperty ?? (error.keyword === 'discriminator' ? named.tag : undefined)
  const field = [at, inner].filter(Boolean).join('.')
  return { field: field || WHOLE_BODY, message: messageOf(error) }
}

function messageOf(error: ErrorObject): string {
  switch (error.keyword) {
    case 'required':
      return 'is missing'
    case 'additionalProperties':
      return 'is not a known field'
    case 'const':
    case 'enum':
    case 'discriminator':
      return 'is not one of the allowed values'
    case 'format':
      return error.params['format'] === 'http-url' ? 'must be an http or https URL' : 'is at most 32 bytes of UTF-8, without NUL'
    default:
      return error.message ?? 'is not valid'
  }
}

export const JSON_DEPTH_MAX = 100
/** As the name of a field; its own fields go by their names alone. */
export const WHOLE_BODY = 'body'

/**
 * Refuses what JSON can carry but a message must not: NUL characters, lone surrogates, `__proto__`,
 * numbers beyond those that come back as they went, and nesting past JSON_DEPTH_MAX.
 * @throws {Refusal} invalid_request naming the field
 */
export function requireCleanJson(value: unknown, field: string, depth = 0): void {
  if (typeof value === 'string') return requireCleanText(value, field)
  if (typeof value === 'number' && !Number.isFinite(value)) throw invalidField(field, 'is a number out of range')
  if (typeof value !== 'object' || value === null) return
  if (depth >= JSON_DEPTH_MAX) throw invalidField(field, `is nested deeper than ${JSON_DEPTH_MAX} levels`)
  if (Array.isArray(value)) return value.forEach((item) => requireCleanJson(item, field, depth + 1))
  for (const key of Object.keys(value)) {
    requireCleanText(key, field)
    const inner = field === WHOLE_BODY ? key : `${field}.${key}`
    if (key === '__proto__') throw invalidField(inner, 'is not allowed')
    requireCleanJson((value as Record<string, unknown>)[key], inner, depth + 1)
  }
}

function requireCleanText(text: string, field: string): void {
  if (text.includes('\0')) throw invalidField(field, 'has a NUL character')
  if (!text.isWellFormed()) throw invalidField(field, 'has a lone surrogate')
}

/** @throws {Refusal} payload_too_large */
export function requireBytes(value: unknown, bytesMax: number, field: string): void {
  if (value === undefined || value === null) return
  const bytes = Buffer.byteLength(JSON.stringify(value))
  if (bytes > bytesMax)
    throw new Refusal('payload_too_large', `${field} has ${bytes} bytes as JSON; at most ${bytesMax} are taken.`, {
      errors: [{ field, message: `at most ${bytesMax} bytes` }],
    })
}
