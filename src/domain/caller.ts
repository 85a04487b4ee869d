import { Refusal } from './errors.js'
import type { Actor } from './event-store.js'

/** What an app may do; `moderate` and those after it allow nothing yet. */
export const scopes = ['users', 'act', 'audit', 'moderate', 'feeds', 'review', 'govern', 'import'] as const
export type Scope = (typeof scopes)[number]

/** Who a token speaks for. */
export type Identity =
  | {
      kind: 'user'
      userId: string
      deviceId: string | null /** ms; null counts as before any revocation */
      issuedAt: number | null /** ms */
      expiresAt: number
    }
  | { kind: 'app'; app: string; scopes: ReadonlySet<Scope> }

/** A token with a good signature that is refused all the same: a WebSocket says by its close code which of the two it is. */
export class TokenRefusal extends Refusal {
  readonly reason: 'expired' | 'revoked'

  constructor(reason: 'expired' | 'revoked', cause?: unknown) {
    super(
      'unauthenticated',
      reason === 'expired'
        ? 'The token has expired: get a new one.'
        : 'This device was revoked: it needs a token that is issued after that.',
      { cause },
    )
    this.reason = reason
  }
}

/** Turns a bearer token into an identity; shared by REST and gateway. */
export interface Authenticator {
  /**
   * @throws {Refusal} unauthenticated: no such secret, a bad signature; a TokenRefusal: expired, or a device that was revoked after the token was issued
   */
  authenticate(token: string): Promise<Identity>
  /** Whether a token of this device that was issued then is refused. @throws {Refusal} unavailable */
  isRevoked(userId: string, deviceId: string, issuedAt: number | null): Promise<boolean>
}

/** The actor that events name: a user, or an app for a user. */
export const actorOf = (userId: string, app?: string): Actor => (app === undefined ? { userId } : { userId, app })
