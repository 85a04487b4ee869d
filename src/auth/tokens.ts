import { SignJWT } from 'jose'
import type { TokenClaims } from './user-tokens.js'

export interface IssuedToken {
  token: string
  /** ISO 8601. */
  expiresAt: string
}

/**
 * Makes a user's token, signed with `JWT_SECRET`. Its `iat` has a fraction, down to the millisecond:
 * a token that is issued right after its device was deleted is newer than the deletion.
 */
export async function issueToken(
  jwtSecret: string,
  user: { userId: string; deviceId?: string | undefined; ttlSeconds: number } & Partial<TokenClaims>,
  { now = Date.now(), issuedAt = now }: { now?: number; issuedAt?: number } = {},
): Promise<IssuedToken> {
  const exp = Math.ceil(now / 1_000) + user.ttlSeconds
  const { userId, deviceId, jwtIssuer, jwtAudience } = user
  const claims = {
    sub: userId,
    iat: issuedAt / 1_000,
    exp,
    ...(deviceId === undefined ? {} : { deviceId }),
    ...(jwtIssuer === undefined ? {} : { iss: jwtIssuer }),
    ...(jwtAudience === undefined ? {} : { aud: jwtAudience }),
  }
  const token = await new SignJWT(claims).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(new TextEncoder().encode(jwtSecret))
  return { token, expiresAt: new Date(exp * 1_000).toISOString() }
}
