import { createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Authenticator, type Identity, type Scope, TokenRefusal } from '../domain/caller.js'
import type { Logger } from '../domain/logger.js'
import type { Users } from '../domain/users.js'
import { KEYS_AGE_MS_MAX, KeySet } from './key-set.js'
import { type TokenClaims, type VerifiedToken, UserTokens, requireNotAhead } from './user-tokens.js'

export interface AuthenticatorOptions {
  appKeys: readonly { readonly name: string; readonly secret: string; readonly scopes: ReadonlySet<Scope> }[]
  jwtSecret: string
  jwksUrl: string | undefined
  claims?: TokenClaims
  users: Pick<Users, 'devices'>
  logger: Logger
  now?: () => number
}

const VERIFIED_TOKENS_MAX = 20_000
/** Of the tokens' texts; one has at most 8 KiB. */
const VERIFIED_CHARACTERS_MAX = 16 << 20

interface Kept extends VerifiedToken {
  readonly at: number
}

/**
 * Verifies app secrets and users' tokens. The same token comes with every request, so what was verified is kept:
 * no longer than the keys that vouched for it, and at most KEYS_AGE_MS_MAX.
 */
export function createAuthenticator(options: AuthenticatorOptions): Authenticator & { close(): void } {
  const { users, jwtSecret, jwksUrl, logger, claims = { jwtIssuer: undefined, jwtAudience: undefined }, now = Date.now } = options
  const apps = new AppSecrets(options.appKeys)
  const keySet = jwksUrl === undefined ? undefined : new KeySet({ url: jwksUrl, logger, now })
  const tokens = new UserTokens({ jwtSecret, keySet, claims, now })
  const verified = new LRUCache<string, Kept>({
    max: VERIFIED_TOKENS_MAX,
    maxSize: VERIFIED_CHARACTERS_MAX,
    sizeCalculation: (_, token) => token.length,
  })
  // A wrong JWKS_URL is told at the start, not when the first user comes.
  void Promise.resolve(keySet?.current()).catch(() => {})

  const isRevoked = async (userId: string, deviceId: string, issuedAt: number | null): Promise<boolean> => {
    const upTo = await users.devices.refusedUpTo(userId, deviceId)
    return upTo !== undefined && (issuedAt ?? 0) <= upTo
  }

  const isStillVouchedFor = async ({ at, keys }: Kept): Promise<boolean> => {
    if (Math.abs(now() - at) >= KEYS_AGE_MS_MAX) return false
    if (keys === undefined || keySet === undefined) return true
    const current = keySet.current()
    return (current instanceof Promise ? await current : current) === keys
  }

  const identityOf = async (token: string): Promise<Identity> => {
    const known = verified.get(token)
    if (known && (await isStillVouchedFor(known))) return known.identity
    const app = apps.find(token)
    if (app) return app
    const fresh = await tokens.verify(token)
    verified.set(token, { ...fresh, at: now() })
    return fresh.identity
  }

  return {
    isRevoked,
    async authenticate(token) {
      const identity = await identityOf(token)
      if (identity.kind === 'app') return identity
      const { userId, deviceId, issuedAt, expiresAt } = identity
      if (expiresAt <= now()) throw new TokenRefusal('expired')
      const upTo = deviceId === null ? undefined : await users.devices.refusedUpTo(userId, deviceId)
      if (upTo !== undefined && (issuedAt ?? 0) <= upTo) throw new TokenRefusal('revoked')
      // A token that is made after a deletion is dated after it, also where this clock was set back since.
      if (issuedAt !== null) requireNotAhead('iat', issuedAt, Math.max(now(), upTo ?? 0))
      return identity
    },
    close: () => keySet?.close(),
  }
}

/**
 * Looked up by a hash with a key of this process's own, which nobody outside can compute: however many apps there are, it takes one
 * hash, and the time that the look-up takes tells nothing about any secret.
 */
class AppSecrets {
  readonly #key = randomBytes(32)
  readonly #identities: ReadonlyMap<string, Identity>

  constructor(appKeys: AuthenticatorOptions['appKeys']) {
    this.#identities = new Map(appKeys.map(({ name, secret, scopes }) => [this.#hash(secret), { kind: 'app', app: name, scopes }]))
  }

  find(secret: string): Identity | undefined {
    return this.#identities.get(this.#hash(secret))
  }

  #hash(secret: string): string {
    return createHmac('sha256', this.#key).update(secret).digest('base64')
  }
}
