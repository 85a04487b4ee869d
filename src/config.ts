import proxyaddr from '@fastify/proxy-addr'
import { type Scope, scopes } from './domain/caller.js'
import { isOriginForm } from './origins.js'
import { StartError } from './start-error.js'

/** The settings of a server, checked. Nothing but this file reads process.env. */
export type Config = {
  readonly host: string
  readonly port: number
  readonly dataDir: string
  readonly databaseUrl: string | undefined
  readonly eventStoreUrl: string | undefined
  readonly redisUrl: string | undefined
  /** Undefined: kept in `dataDir`, see secrets.ts. */
  readonly appKeys: readonly AppKey[] | undefined
  readonly jwtSecret: string | undefined
  readonly jwksUrl: string | undefined
  /** The `iss` and `aud` that every user's token must have. */
  readonly jwtIssuer: string | undefined
  readonly jwtAudience: string | undefined
  /** Origins of browsers that may call, see origins.ts; empty: those of the request's host. */
  readonly allowedOrigins: readonly string[]
  /** Where clients reach the server, without a slash at its end; undefined: where they say that they have reached it. */
  readonly publicUrl: string | undefined
  readonly roles: ReadonlySet<Role>
  readonly fanoutOnWriteMembersMax: number
  readonly groupMembersMax: number
  /** Undefined: no limit. */
  readonly framesPerSecond: number | undefined
  /** Sockets whose hello is not answered yet, of one address and of all; 0: no limit. */
  readonly handshakesPerAddress: number
  readonly handshakesMax: number
  /** Addresses and networks whose X-Forwarded-For is believed. */
  readonly trustedProxies: readonly string[]
  readonly logLevel: LogLevel
  /** Sentences for the log: settings that work but are unwise. */
  readonly warnings: readonly string[]
}

export type AppKey = { readonly name: string; readonly secret: string; readonly scopes: ReadonlySet<Scope> }
export type Role = (typeof roles)[number]
export type LogLevel = (typeof logLevels)[number]
export type Environment = Readonly<Record<string, string | undefined>>

/** The scopes of an app whose entry names none. */
export const appScopes = ['users', 'act', 'audit'] as const satisfies readonly Scope[]
export const roles = ['api', 'gateway', 'projections'] as const
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

const SECRET_CHARACTERS_MIN = 16

/** A setting that is wrong. The message is one sentence that names it. */
export class ConfigError extends StartError {
  override name = 'ConfigError'
}

/** Reads and checks all settings; an empty one counts as not set. */
export function loadConfig(env: Environment = process.env): Config {
  const appKeys = parseAppKeys(setting(env, 'APP_KEYS'))
  const jwtSecret = setting(env, 'JWT_SECRET')
  const jwksUrl = parseJwksUrl(env)
  const warnings = [...weakSecrets(appKeys ?? [], jwtSecret), ...unprotectedKeySet(jwksUrl), ...apartFromOtherNodes(env)]
  return {
    host: setting(env, 'HOST') ?? '127.0.0.1',
    port: integer(env, 'PORT', { fallback: 8080, min: 0, max: 65_535 }),
    dataDir: setting(env, 'DATA_DIR') ?? './data',
    databaseUrl: url(env, 'DATABASE_URL', ['postgres:', 'postgresql:']),
    eventStoreUrl: url(env, 'EVENTSTORE_URL', ['esdb:', 'esdb+discover:', 'kurrentdb:', 'kurrentdb+discover:']),
    redisUrl: url(env, 'REDIS_URL', ['redis:', 'rediss:']),
    appKeys,
    jwtSecret,
    jwksUrl,
    jwtIssuer: setting(env, 'JWT_ISSUER'),
    jwtAudience: setting(env, 'JWT_AUDIENCE'),
    allowedOrigins: origins(env),
    publicUrl: parsePublicUrl(env),
    roles: parseRoles(setting(env, 'ROLES'), setting(env, 'DATABASE_URL')),
    fanoutOnWriteMembersMax: integer(env, 'FANOUT_ON_WRITE_MAX', { fallback: 500, min: 1 }),
    groupMembersMax: integer(env, 'GROUP_MEMBERS_MAX', { fallback: 100_000, min: 1 }),
    framesPerSecond: integer(env, 'FRAMES_PER_SECOND', { fallback: 60, min: 0 }) || undefined,
    handshakesPerAddress: integer(env, 'HANDSHAKES_PER_ADDRESS', { fallback: 1_000, min: 0 }),
    handshakesMax: integer(env, 'HANDSHAKES_MAX', { fallback: 10_000, min: 0 }),
    trustedProxies: trustedProxies(env),
    logLevel: oneOf('LOG_LEVEL', setting(env, 'LOG_LEVEL') ?? 'info', logLevels),
    warnings,
  }
}

function setting(env: Environment, name: string): string | undefined {
  return env[name]?.trim() || undefined
}

function integer(env: Environment, name: string, bounds: { fallback: number; min: number; max?: number }): number {
  const { fallback, min, max = Number.MAX_SAFE_INTEGER } = bounds
  const text = setting(env, name)
  if (text === undefined) return fallback
  const value = Number(text)
  const expected = bounds.max === undefined ? `of at least ${min}` : `from ${min} to ${max}`
  if (!/^\d+$/.test(text) || value < min || value > max) throw new ConfigError(`${name} must be a whole number ${expected}, not "${text}".`)
  return value
}

function url(env: Environment, name: string, protocols: readonly string[]): string | undefined {
  const text = setting(env, name)
  if (text === undefined) return undefined
  // The value is never repeated: it may hold a password.
  const wrong = new ConfigError(`${name} must be a URL that begins with ${protocols.map((one) => `${one}//`).join(' or ')}.`)
  const protocol = protocols.find((one) => text.startsWith(`${one}//`))
  if (!protocol) throw wrong
  // A cluster's URL names several hosts, which is no URL to the parser: look at the first.
  const first = text.replace(/,[^/?]*/, '')
  if (!URL.canParse(first)) throw wrong
  if (!isPercentEncoded(new URL(first))) throw new ConfigError(`${name} has a user or password with a "%" that encodes nothing: write %25.`)
  return text
}

function isPercentEncoded({ username, password }: URL): boolean {
  try {
    decodeURIComponent(username)
    decodeURIComponent(password)
    return true
  } catch {
    return false
  }
}

function parseJwksUrl(env: Environment): string | undefined {
  const text = url(env, 'JWKS_URL', ['http:', 'https:'])
  if (text === undefined) return undefined
  const { username, password } = new URL(text)
  if (username !== '' || password !== '') throw new ConfigError('JWKS_URL must not hold a user or a password: a key set is public.')
  return text
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/

function unprotectedKeySet(jwksUrl: string | undefined): string[] {
  if (jwksUrl === undefined) return []
  const { protocol, hostname } = new URL(jwksUrl)
  if (protocol === 'https:' || LOOPBACK.test(hostname)) return []
  return ['JWKS_URL begins with http://, so whoever sits on the way can put keys of its own into the key set: use https://.']
}

function parsePublicUrl(env: Environment): string | undefined {
  const text = url(env, 'PUBLIC_URL', ['http:', 'https:'])
  if (text === undefined) return undefined
  const { origin, pathname, search, hash, username, password } = new URL(text)
  if (search + hash + username + password !== '')
    throw new ConfigError('PUBLIC_URL must be an address such as https://chat.example.com or https://example.com/chat, and nothing more.')
  return `${origin}${pathname}`.replace(/\/+$/, '')
}

function origins(env: Environment): string[] {
  const list = split(setting(env, 'ALLOWED_ORIGINS'))
  const wrong = list.find((origin) => !isOriginForm(origin))
  if (wrong !== undefined) {
    throw new ConfigError(
      `ALLOWED_ORIGINS must list origins such as https://app.example.com, https://*.example.com or capacitor://localhost, or *, not "${wrong}".`,
    )
  }
  return list
}

function trustedProxies(env: Environment): string[] {
  const list = split(setting(env, 'TRUST_PROXY'))
  for (const one of list) {
    try {
      proxyaddr.compile(one)
    } catch {
      throw new ConfigError(`TRUST_PROXY must list addresses or networks of proxies, such as 10.0.0.0/8, not "${one}".`)
    }
  }
  return list
}

function parseRoles(text: string | undefined, databaseUrl: string | undefined): ReadonlySet<Role> {
  if (text === undefined) return new Set(roles)
  const list = split(text)
  if (list.length === 0) throw new ConfigError(`ROLES must name at least one of ${roles.join(', ')}.`)
  const own = new Set(list.map((role) => oneOf('ROLES', role, roles)))
  // The rest is done by other nodes, and those can not reach the Postgres that this one would start for itself.
  if (own.size < roles.length && databaseUrl === undefined)
    throw new ConfigError('DATABASE_URL is missing: ROLES splits the server into several nodes, and those share one.')
  return own
}

/** Settings of a node that is not alone, and does not share all that it should. */
function apartFromOtherNodes(env: Environment): string[] {
  const roleCount = new Set(split(setting(env, 'ROLES'))).size
  const hasSecrets =
    setting(env, 'APP_KEYS') !== undefined && (setting(env, 'JWT_SECRET') !== undefined || setting(env, 'JWKS_URL') !== undefined)
  const warnings: string[] = []
  if (roleCount > 0 && roleCount < roles.length && setting(env, 'REDIS_URL') === undefined) {
    warnings.push(
      'ROLES splits the server into several nodes, and without REDIS_URL each knows presence and typing of its own users alone.',
    )
  }
  if (setting(env, 'REDIS_URL') !== undefined && !hasSecrets)
    warnings.push('REDIS_URL is for several nodes, and without APP_KEYS and JWT_SECRET each makes secrets of its own.')
  return warnings
}

function oneOf<T extends string>(name: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((one) => one === text)
  if (found === undefined) throw new ConfigError(`${name} knows ${allowed.join(', ')}, not "${text}".`)
  return found
}

function parseAppKeys(text: string | undefined): AppKey[] | undefined {
  if (text === undefined) return undefined
  const keys = split(text).map(parseAppKey)
  if (keys.length === 0) throw new ConfigError('APP_KEYS must be a list of name:secret or name:secret:scope+scope.')
  if (new Set(keys.map((key) => key.name)).size < keys.length) throw new ConfigError('APP_KEYS has two entries of the same name.')
  if (new Set(keys.map((key) => key.secret)).size < keys.length) throw new ConfigError('APP_KEYS has two entries with the same secret.')
  return keys
}

function parseAppKey(entry: string, index: number): AppKey {
  const [name, secret, named, ...rest] = entry.split(':')
  // The entry is named by its place and not repeated: it holds a secret.
  if (!name || !secret || rest.length > 0 || !/^[\w.-]{1,64}$/.test(name) || !/^[\x21-\x7e]+$/.test(secret)) {
    throw new ConfigError(`APP_KEYS must be a list of name:secret or name:secret:scope+scope, and entry ${index + 1} is not.`)
  }
  return { name, secret, scopes: parseScopes(name, named) }
}

function parseScopes(name: string, text: string | undefined): ReadonlySet<Scope> {
  if (text === undefined) return new Set(appScopes)
  return new Set(text.split('+').map((scope) => oneOf(`APP_KEYS (entry ${name})`, scope, scopes)))
}

function weakSecrets(appKeys: readonly AppKey[], jwtSecret: string | undefined): string[] {
  const tooShort = `is shorter than ${SECRET_CHARACTERS_MIN} characters, which can be guessed.`
  const warnings = appKeys
    .filter((key) => key.secret.length < SECRET_CHARACTERS_MIN)
    .map((key) => `The secret of ${key.name} in APP_KEYS ${tooShort}`)
  if (jwtSecret !== undefined && jwtSecret.length < SECRET_CHARACTERS_MIN) warnings.push(`JWT_SECRET ${tooShort}`)
  return warnings
}

function split(text: string | undefined): string[] {
  return (text ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}
