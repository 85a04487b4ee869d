/** Verifies the tokens of users: JWTs signed with JWT_SECRET, or with a key of JWKS_URL. */
import { type JWTPayload, type JWTVerifyGetKey, decodeProtectedHeader, errors, jwtVerify } from 'jose'
import type { Identity } from '../domain/caller.js'
import { Refusal } from '../domain/errors.js'
import { isUserId } from '../domain/ids.js'
import type { KeySet, Keys } from './key-set.js'

export type UserIdentity = Extract<Identity, { kind: 'user' }>

/** What every token must say of its issuer and of those whom it is for, where a setting asks for it. */
export interface TokenClaims {
  readonly jwtIssuer: string | undefined
  readonly jwtAudience: string | undefined
}

export interface VerifiedToken {
  identity: UserIdentity
  /** The keys that vouch for it; undefined for JWT_SECRET, which only a restart changes. */
  keys: Keys | undefined
}

const TOKEN_CHARACTERS_MAX = 8_192
/** By so much the clock of an issuer may be ahead of this server's. */
export const CLOCK_SKEW_MS = 60_000
/** 9999-12-31, in seconds: what lies beyond was not meant in seconds. */
const TIME_MAX = 253_402_300_799
const ASYMMETRIC = ['RS256', 'ES256', 'EdDSA', 'Ed25519']

export class UserTokens {
  readonly #secret: Uint8Array
  readonly #keySet: KeySet | undefined
  readonly #claims: TokenClaims
  readonly #now: () => number

  constructor(options: { jwtSecret: string; keySet: KeySet | undefined; claims: TokenClaims; now: () => number }) {
    this.#secret = new TextEncoder().encode(options.jwtSecret)
    this.#keySet = options.keySet
    this.#claims = options.claims
    this.#now = options.now
  }

  /** Verifies all but the end and the time of issue, which are compared with the clock at each use. @throws {Refusal} unauthenticated, unavailable */
  async verify(token: string): Promise<VerifiedToken> {
    const alg = algorithmOf(token)
    try {
      if (alg === 'HS256') {
        const { payload } = await jwtVerify(token, this.#secret, { ...this.#expected(), algorithms: ['HS256'] })
        return { identity: this.#identityIn(payload), keys: undefined }
      }
      if (this.#keySet && ASYMMETRIC.includes(alg)) {
        const check = (find: JWTVerifyGetKey) => jwtVerify(token, find, { ...this.#expected(), algorithms: ASYMMETRIC })
        const { result, keys } = await this.#keySet.verify(check)
        return { identity: this.#identityIn(result.payload), keys }
      }
    } catch (error) {
      throw refusalOfToken(error)
    }
    throw unauthenticated('The token is signed in a way that is not accepted here.')
  }

  /** The library counts whole seconds and gives `exp` the same tolerance as `nbf`: times are checked here and by the authenticator. */
  #expected() {
    const { jwtIssuer, jwtAudience } = this.#claims
    return {
      currentDate: new Date(this.#now()),
      clockTolerance: TIME_MAX,
      requiredClaims: ['sub', 'exp'],
      ...(jwtIssuer === undefined ? {} : { issuer: jwtIssuer }),
      ...(jwtAudience === undefined ? {} : { audience: jwtAudience }),
    }
  }

  /** The claims as an identity. @throws {Refusal} unauthenticated */
  #identityIn({ sub, exp, iat, nbf, deviceId }: JWTPayload): UserIdentity {
    if (typeof sub !== 'string' || !isUserId(sub)) throw unauthenticated('The claim "sub" of the token is not a user id.')
    if (deviceId !== undefined && (typeof deviceId !== 'string' || !isUserId(deviceId)))
      throw unauthenticated('The claim "deviceId" of the token is not a device id.')
    if (nbf !== undefined) requireNotAhead('nbf', timeIn('nbf', nbf), this.#now())
    const issuedAt = iat === undefined ? null : Math.round(timeIn('iat', iat))
    return { kind: 'user', userId: sub, deviceId: deviceId ?? null, issuedAt, expiresAt: timeIn('exp', exp) }
  }
}

/** @throws {Refusal} unauthenticated */
export function requireNotAhead(claim: 'iat' | 'nbf', atMs: number, nowMs: number): void {
  const aheadMs = atMs - nowMs
  if (aheadMs > CLOCK_SKEW_MS)
    throw unauthenticated(
      `The token's claim "${claim}" is ${Math.ceil(aheadMs / 1_000)} s ahead of the server's clock, and at most ${CLOCK_SKEW_MS / 1_000} s are accepted: compare the clocks.`,
    )
}

/** In ms. */
function timeIn(claim: string, value: unknown): number {
  if (typeof value !== 'number' || !(value >= 0 && value <= TIME_MAX))
    throw unauthenticated(`The token's claim "${claim}" is not a time in seconds since 1970.`)
  return value * 1_000
}

export const unauthenticated = (detail: string, cause?: unknown) => new Refusal('unauthenticated', detail, { cause })

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

function refusalOfToken(error: unknown): unknown {
  if (error instanceof errors.JWTClaimValidationFailed)
    return unauthenticated(`The token's claim "${error.claim}" is missing or not the one expected here.`, error)
  if (error instanceof errors.JWKSNoMatchingKey) return unauthenticated('The key that this token names is not in the key set.', error)
  if (error instanceof errors.JOSEError) return unauthenticated('The signature of the token is not valid.', error)
  return error
}
