import { createHash, timingSafeEqual } from 'node:crypto'
import { type JWTPayload, type JWTVerifyGetKey, createRemoteJWKSet, decodeProtectedHeader, errors, jwtVerify } from 'jose'
import { LRUCache } from 'lru-cache'
import { type Authenticator, type Identity, type Scope, TokenRefusal } from '../domain/caller.js'
import { Refusal, unavailable } from '../domain/errors.js'
import { isUserId } from '../domain/ids.js'
import type { Users } from '../domain/users.js'

export interface AuthenticatorOptions {
  appKeys: readonly { readonly name: string; readonly secret: string; readonly scopes: ReadonlySet<Scope> }[]
  jwtSecret: string
  jwksUrl: string | undefined
  users: Pick<Users, 'load'>
  now?: () => number
}

type UserIdentity = Extract<Identity, { kind: 'user' }>

const VERIFIED_TOKENS_MAX = 20_000
const TOKEN_CHARACTERS_MAX = 8_192
const JWKS_TIMEOUT_MS = 5_000
const JWKS_COOLDOWN_MS = 30_000
const JWKS_AGE_MS_MAX = 600_000
const ASYMMETRIC = ['RS256', 'ES256', 'EdDSA', 'Ed25519']

/** Verifies app secrets and users' tokens; what was verified is kept until it expires, since the same token comes with every request. */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { users, now = Date.now } = options
  const apps = new AppSecrets(options.appKeys)
  const verify = tokenVerifier(options, now)
  const verified = new LRUCache<string, UserIdentity>({ max: VERIFIED_TOKENS_MAX })

  const isRevoked = async (userId: string, deviceId: string, issuedAt: number | null): Promise<boolean> => {
    const loading = users.load(userId)
    const { state } = loading instanceof Promise ? await loading : loading
    const revokedAt = state.revokedAt.get(deviceId)
    return revokedAt !== undefined && (issuedAt === null || issuedAt < revokedAt)
  }

  const identityOf = async (token: string): Promise<Identity> => {
    const known = verified.get(token)
    if (known) return known
    const app = apps.find(token)
    if (app) return app
    const identity = await verify(token)
    verified.set(token, identity)
    return identity
  }

  return {
    isRevoked,
    async authenticate(token) {
      const identity = await identityOf(token)
      if (identity.kind === 'app') return identity
      if (identity.expiresAt <= now()) throw new TokenRefusal('expired')
      if (identity.deviceId !== null && (await isRevoked(identity.userId, identity.deviceId, identity.issuedAt))) {
        throw new TokenRefusal('revoked')
      }
      return identity
    },
  }
}

const unauthenticated = (detail: string, cause?: unknown) => new Refusal('unauthenticated', detail, { cause })

/** Compared by hash, so that all have one length, and all of them each time, so that the time tells nothing. */
class AppSecrets {
  readonly #apps: readonly { hash: Buffer; identity: Identity }[]

  constructor(appKeys: AuthenticatorOptions['appKeys']) {
    this.#apps = appKeys.map(({ name, secret, scopes }) => ({ hash: sha256(secret), identity: { kind: 'app', app: name, scopes } }))
  }

  find(secret: string): Identity | undefined {
    const hash = sha256(secret)
    let found: Identity | undefined
    for (const app of this.#apps) if (timingSafeEqual(app.hash, hash)) found = app.identity
    return found
  }
}

const sha256 = (text: string) => createHash('sha256').update(text).digest()

function tokenVerifier({ jwtSecret, jwksUrl }: AuthenticatorOptions, now: () => number): (token: string) => Promise<UserIdentity> {
  const secret = new TextEncoder().encode(jwtSecret)
  const publicKey = jwksUrl === undefined ? undefined : publicKeyOf(jwksUrl)
  return async (token) => {
    const alg = algorithmOf(token)
    const options = { currentDate: new Date(now()), requiredClaims: ['sub', 'exp'] }
    try {
      if (alg === 'HS256') return identityIn((await jwtVerify(token, secret, { ...options, algorithms: ['HS256'] })).payload)
      if (publicKey && ASYMMETRIC.includes(alg))
        return identityIn((await jwtVerify(token, publicKey, { ...options, algorithms: ASYMMETRIC })).payload)
    } catch (error) {
      throw refusalOfToken(error)
    }
    throw unauthenticated('The token is signed in a way that is not accepted here.')
  }
}

function algorithmOf(token: string): string {
  if (token.length <= TOKEN_CHARACTERS_MAX && token.includes('.')) {
    try {
      return decodeProtectedHeader(token).alg ?? ''
    } catch {
      // Neither a secret that is known nor a token.
    }
  }
  throw unauthenticated('This is neither the secret of an app nor a token.')
}

/** The keys of JWKS_URL, kept for a while. That their host is down says nothing about the token. */
function publicKeyOf(jwksUrl: string): JWTVerifyGetKey {
  const keys = createRemoteJWKSet(new URL(jwksUrl), {
    timeoutDuration: JWKS_TIMEOUT_MS,
    cooldownDuration: JWKS_COOLDOWN_MS,
    cacheMaxAge: JWKS_AGE_MS_MAX,
  })
  return async (header, token) => {
    try {
      return await keys(header, token)
    } catch (error) {
      if (error instanceof errors.JWKSMultipleMatchingKeys) throw unauthenticated('The token must name its key in the header "kid".', error)
      if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JOSENotSupported) throw error
      throw unavailable('The keys that tokens are verified with can not be reached now: send the same again.', error)
    }
  }
}

function refusalOfToken(error: unknown): unknown {
  if (error instanceof errors.JWTExpired) return new TokenRefusal('expired', error)
  if (error instanceof errors.JWTClaimValidationFailed)
    return unauthenticated(`The token's claim "${error.claim}" is missing or not valid.`, error)
  if (error instanceof errors.JOSEError) return unauthenticated('The signature of the token is not valid.', error)
  return error
}

/** The claims as an identity. @throws {Refusal} unauthenticated */
function identityIn({ sub, exp, iat, deviceId }: JWTPayload): UserIdentity {
  if (typeof sub !== 'string' || !isUserId(sub)) throw unauthenticated('The claim "sub" of the token is not a user id.')
  if (deviceId !== undefined && (typeof deviceId !== 'string' || !isUserId(deviceId)))
    throw unauthenticated('The claim "deviceId" of the token is not a device id.')
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw unauthenticated('The claim "exp" of the token is missing.')
  if (iat !== undefined && (typeof iat !== 'number' || !Number.isFinite(iat)))
    throw unauthenticated('The claim "iat" of the token is not a time.')
  return {
    kind: 'user',
    userId: sub,
    deviceId: deviceId ?? null,
    issuedAt: iat === undefined ? null : Math.round(iat * 1_000),
    expiresAt: exp * 1_000,
  }
}
