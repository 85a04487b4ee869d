import { SignJWT } from 'jose'

export interface IssuedToken {
  token: string
  /** ISO 8601. */
  expiresAt: string
}

/**
 * A user's token, signed with `JWT_SECRET`. Its `iat` has a fraction, down to the millisecond:
 * a token that is issued right after its device was revoked is newer than the revocation.
 */
export async function issueToken(
  jwtSecret: string,
  user: { userId: string; deviceId?: string | undefined; ttlSeconds: number },
  now = Date.now(),
): Promise<IssuedToken> {
  const exp = Math.ceil(now / 1_000) + user.ttlSeconds
  const claims = { sub: user.userId, iat: now / 1_000, exp, ...(user.deviceId === undefined ? {} : { deviceId: user.deviceId }) }
  const token = await new SignJWT(claims).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(new TextEncoder().encode(jwtSecret))
  return { token, expiresAt: new Date(exp * 1_000).toISOString() }
}
