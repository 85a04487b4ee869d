import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type CryptoKey, SignJWT, UnsecuredJWT, exportJWK, generateKeyPair } from 'jose'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createAuthenticator } from '../../src/auth/authenticator.js'
import { issueToken } from '../../src/auth/tokens.js'
import type { TokenClaims } from '../../src/auth/user-tokens.js'
import type { Authenticator } from '../../src/domain/caller.js'
import { Refusal } from '../../src/domain/errors.js'
import type { Logger } from '../../src/domain/logger.js'
import { Users } from '../../src/domain/users.js'
import { InMemoryEventStore } from '../support/in-memory-event-store.js'
import { silent } from '../support/read-side.js'

const jwtSecret = 'a-secret-that-only-this-test-knows'
const appKeys = [
  { name: 'shop', secret: 'secret-of-the-shop', scopes: new Set(['users', 'act', 'audit'] as const) },
  { name: 'auditor', secret: 'secret-of-the-auditor', scopes: new Set(['audit'] as const) },
]
const requester = { actor: { userId: 'alice' }, correlationId: 'test' }

interface SetUp {
  jwksUrl?: string
  now?: () => number
  claims?: TokenClaims
  logger?: Logger
}

function setUp({ jwksUrl, now, claims, logger = silent }: SetUp = {}): { authenticator: Authenticator; users: Users } {
  const snapshots = { load: async () => undefined, save: async () => {}, discard: async () => {} }
  const users = new Users({ store: new InMemoryEventStore(), snapshots, logger: silent, cacheWeightMax: 1 << 20 })
  const options = { ...(now ? { now } : {}), ...(claims ? { claims } : {}) }
  const authenticator = createAuthenticator({ appKeys, jwtSecret, jwksUrl, users, logger, ...options })
  onTestFinished(() => authenticator.close())
  return { authenticator, users }
}

const seconds = () => Math.floor(Date.now() / 1_000)
const sign = (claims: Record<string, unknown>, secret = jwtSecret, alg = 'HS256') =>
  new SignJWT(claims).setProtectedHeader({ alg }).sign(new TextEncoder().encode(secret))
const valid = () => ({ sub: 'alice', iat: seconds(), exp: seconds() + 60 })

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => new Error('it was accepted'),
    (thrown: unknown) => thrown,
  )
  return error instanceof Refusal ? error.code : String(error)
}

describe('a token signed with the secret', () => {
  test('speaks for its user and device', async () => {
    const token = await sign({ ...valid(), deviceId: 'phone' })
    expect(await setUp().authenticator.authenticate(token)).toMatchObject({ kind: 'user', userId: 'alice', deviceId: 'phone' })
  })

  test('has no time of issue where it does not say one', async () => {
    expect(await setUp().authenticator.authenticate(await sign({ sub: 'alice', exp: seconds() + 60 }))).toMatchObject({ issuedAt: null })
  })

  test('keeps the fraction of its time of issue', async () => {
    const token = await sign({ ...valid(), iat: 1_700_000_000.125 })
    expect(await setUp().authenticator.authenticate(token)).toMatchObject({ issuedAt: 1_700_000_000_125 })
  })

  test.each([
    ['no exp', { sub: 'alice', iat: 1 }],
    ['an exp that has passed', { ...valid(), exp: seconds() - 1 }],
    ['an exp that is no number', { ...valid(), exp: 'tomorrow' }],
    ['an iat that is no number', { ...valid(), iat: 'yesterday' }],
    ['no sub', { exp: seconds() + 60 }],
    ['a sub that is no user id', { ...valid(), sub: 'a b' }],
    ['an empty sub', { ...valid(), sub: '' }],
    ['a sub that is no text', { ...valid(), sub: 7 }],
    ['a deviceId that is none', { ...valid(), deviceId: '-' }],
    ['a deviceId of null', { ...valid(), deviceId: null }],
    ['an iat in milliseconds', { ...valid(), iat: Date.now() }],
    ['an iat before 1970', { ...valid(), iat: -1 }],
    ['an exp in milliseconds', { ...valid(), exp: Date.now() + 60_000 }],
    ['an exp beyond all times', { ...valid(), exp: 1e300 }],
    ['an nbf more than a minute ahead', { ...valid(), nbf: seconds() + 65 }],
    ['an iat more than a minute ahead', { ...valid(), iat: seconds() + 65 }],
    ['an nbf that is no number', { ...valid(), nbf: 'soon' }],
  ])('is refused with %s', async (_what, claims) => {
    expect(await codeOf(setUp().authenticator.authenticate(await sign(claims as Record<string, unknown>)))).toBe('unauthenticated')
  })

  test('may come from an issuer whose clock is up to a minute ahead', async () => {
    const token = await sign({ ...valid(), iat: seconds() + 59, nbf: seconds() + 59, exp: seconds() + 120 })
    expect(await setUp().authenticator.authenticate(token)).toMatchObject({ userId: 'alice' })
  })

  test('has a clock compared with its times, which the refusal says', async () => {
    const refused = setUp().authenticator.authenticate(await sign({ ...valid(), nbf: seconds() + 3_600, exp: seconds() + 7_200 }))
    await expect(refused).rejects.toThrow(/"nbf" is 3\d\d\d s ahead of the server's clock.*60 s/)
  })

  test('gets no tolerance for its end', async () => {
    await expect(setUp().authenticator.authenticate(await sign({ ...valid(), exp: seconds() - 2 }))).rejects.toThrow('expired')
  })

  test('must name the issuer and the audience that are asked for', async () => {
    const { authenticator } = setUp({ claims: { jwtIssuer: 'https://id.example', jwtAudience: 'chat' } })
    const codes: string[] = []
    const right = { iss: 'https://id.example', aud: 'chat' }
    for (const claims of [{}, { ...right, iss: 'https://id.example/' }, { ...right, aud: 'shop' }, { iss: right.iss }, { aud: right.aud }])
      codes.push(await codeOf(authenticator.authenticate(await sign({ ...valid(), ...claims }))))
    expect(codes).toEqual(Array.from({ length: 5 }, () => 'unauthenticated'))
    for (const claims of [right, { ...right, aud: ['shop', 'chat'] }])
      expect(await authenticator.authenticate(await sign({ ...valid(), ...claims }))).toMatchObject({ userId: 'alice' })
  })

  test('that is issued here names them', async () => {
    const claims = { jwtIssuer: 'https://id.example', jwtAudience: 'chat' }
    const { token } = await issueToken(jwtSecret, { userId: 'alice', ttlSeconds: 60, ...claims })
    expect(await setUp({ claims }).authenticator.authenticate(token)).toMatchObject({ userId: 'alice' })
  })

  test('is refused once it has expired, though it was verified before', async () => {
    let now = Date.now()
    const { authenticator } = setUp({ now: () => now })
    const token = await sign(valid())
    await authenticator.authenticate(token)
    now += 61_000
    expect(await codeOf(authenticator.authenticate(token))).toBe('unauthenticated')
  })
})

describe('what is no token of ours', () => {
  test.each([
    ['another secret', () => sign(valid(), 'another-secret-another-secret')],
    ['a longer hash than HS256', () => sign(valid(), jwtSecret.padEnd(64, 'x'), 'HS512')],
    ['no signature', async () => new UnsecuredJWT(valid()).encode()],
    [
      'a changed payload',
      async () => {
        const [header, , signature] = (await sign(valid())).split('.')
        return [header, Buffer.from(JSON.stringify({ ...valid(), sub: 'bob' })).toString('base64url'), signature].join('.')
      },
    ],
    [
      'an asymmetric signature, where there is no JWKS_URL',
      async () => new SignJWT(valid()).setProtectedHeader({ alg: 'RS256' }).sign((await generateKeyPair('RS256')).privateKey),
    ],
    ['nothing', async () => ''],
    ['two dots', async () => '..'],
    ['half a header', async () => 'eyJ.e30.x'],
    ['a header that is an array', async () => `${Buffer.from('[]').toString('base64url')}.e30.x`],
    ['an endless text', async () => 'a.'.repeat(100_000)],
    ['a word', async () => 'letmein'],
  ])('is refused: %s', async (_what, make) => {
    expect(await codeOf(setUp().authenticator.authenticate(await make()))).toBe('unauthenticated')
  })
})

describe('a token signed by the issuer of JWKS_URL', () => {
  interface Issuer {
    url: string
    keys: object[]
    asked: number
    status: number
  }

  async function startIssuer(): Promise<Issuer> {
    const issuer: Issuer = { url: '', keys: [], asked: 0, status: 200 }
    const server = createServer((_request, response) => {
      issuer.asked += 1
      response.writeHead(issuer.status, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: issuer.keys }))
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    issuer.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`
    return issuer
  }

  async function keyOf(issuer: Issuer, alg: string, kid: string): Promise<CryptoKey> {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
    issuer.keys.push({ ...(await exportJWK(publicKey)), kid, alg, use: 'sig' })
    return privateKey
  }

  test.each(['RS256', 'ES256', 'EdDSA'])('is accepted with %s', async (alg) => {
    const issuer = await startIssuer()
    const token = await new SignJWT(valid()).setProtectedHeader({ alg, kid: 'one' }).sign(await keyOf(issuer, alg, 'one'))
    expect(await setUp({ jwksUrl: issuer.url }).authenticator.authenticate(token)).toMatchObject({ kind: 'user', userId: 'alice' })
  })

  test('asks the issuer once for many tokens', async () => {
    const issuer = await startIssuer()
    const key = await keyOf(issuer, 'ES256', 'one')
    const { authenticator } = setUp({ jwksUrl: issuer.url })
    for (const sub of ['alice', 'bob', 'carol'])
      await authenticator.authenticate(await new SignJWT({ ...valid(), sub }).setProtectedHeader({ alg: 'ES256', kid: 'one' }).sign(key))
    expect(issuer.asked).toBe(1)
  })

  test('is refused when the issuer does not know the key', async () => {
    const issuer = await startIssuer()
    await keyOf(issuer, 'ES256', 'one')
    const foreign = await new SignJWT(valid())
      .setProtectedHeader({ alg: 'ES256', kid: 'two' })
      .sign((await generateKeyPair('ES256')).privateKey)
    expect(await codeOf(setUp({ jwksUrl: issuer.url }).authenticator.authenticate(foreign))).toBe('unauthenticated')
  })

  test('is refused when another key has signed it under a known name', async () => {
    const issuer = await startIssuer()
    await keyOf(issuer, 'ES256', 'one')
    const forged = await new SignJWT(valid())
      .setProtectedHeader({ alg: 'ES256', kid: 'one' })
      .sign((await generateKeyPair('ES256')).privateKey)
    expect(await codeOf(setUp({ jwksUrl: issuer.url }).authenticator.authenticate(forged))).toBe('unauthenticated')
  })

  test('can not be verified now when the issuer does not answer, which says nothing against it', async () => {
    const issuer = await startIssuer()
    issuer.status = 500
    const token = await new SignJWT(valid()).setProtectedHeader({ alg: 'ES256', kid: 'one' }).sign(await keyOf(issuer, 'ES256', 'one'))
    const { authenticator } = setUp({ jwksUrl: issuer.url })
    expect(await codeOf(authenticator.authenticate(token))).toBe('unavailable')
    expect(await codeOf(setUp({ jwksUrl: 'http://127.0.0.1:9/' }).authenticator.authenticate(token))).toBe('unavailable')
    issuer.status = 200
    await vi.waitFor(async () => expect(await authenticator.authenticate(token)).toMatchObject({ userId: 'alice' }), { timeout: 5_000 })
  })

  /** A token of `sub`, signed by a key. */
  const signBy = (key: CryptoKey, kid: string, sub = 'alice', exp = seconds() + 864_000) =>
    new SignJWT({ ...valid(), sub, exp }).setProtectedHeader({ alg: 'ES256', kid }).sign(key)

  /** An issuer with one key, a server that has fetched it, and a clock. */
  async function withKey() {
    const issuer = await startIssuer()
    const one = await keyOf(issuer, 'ES256', 'one')
    const clock = { now: Date.now() }
    const lines: string[] = []
    const tell = (details: object, text: string) => void lines.push(`${text} ${JSON.stringify(details)}`)
    const logger: Logger = { info: tell, warn: tell, error: tell }
    const { authenticator } = setUp({ jwksUrl: issuer.url, now: () => clock.now, logger })
    const token = await signBy(one, 'one')
    await authenticator.authenticate(token)
    const answer = async (asked: string | Promise<string>) =>
      authenticator.authenticate(await asked).then(
        () => 'accepted',
        (error: unknown) => (error instanceof Refusal ? error.code : String(error)),
      )
    return { issuer, one, clock, lines, authenticator, token, answer }
  }

  test('is accepted at once where a call has made the server look for a new key', async () => {
    const { issuer, answer } = await withKey()
    const two = await keyOf(issuer, 'ES256', 'two')
    expect(await answer(signBy(two, 'two'))).toBe('accepted')
    expect(issuer.asked).toBe(2)
  })

  test('with an unknown key is refused when the set was fetched for it, and put off when that was a moment ago', async () => {
    const { issuer, clock, answer } = await withKey()
    const two = await keyOf({ ...issuer, keys: [] }, 'ES256', 'two')
    expect(await answer(signBy(two, 'two'))).toBe('unauthenticated')
    const three = await keyOf(issuer, 'ES256', 'three')
    clock.now += 4_900
    expect(await answer(signBy(three, 'three'))).toBe('unavailable')
    expect(issuer.asked).toBe(2)
    clock.now += 200
    expect(await answer(signBy(three, 'three'))).toBe('accepted')
    expect(issuer.asked).toBe(3)
  })

  test('with an unknown key waits with all others for one fetch', async () => {
    const { issuer, answer } = await withKey()
    const two = await keyOf(issuer, 'ES256', 'two')
    const tokens = await Promise.all(['a', 'b', 'c', 'd'].map((sub) => signBy(two, 'two', sub)))
    expect(await Promise.all(tokens.map(answer))).toEqual(['accepted', 'accepted', 'accepted', 'accepted'])
    expect(issuer.asked).toBe(2)
  })

  test('is accepted when a new key has taken the name of an old one', async () => {
    const { issuer, token, answer } = await withKey()
    issuer.keys = []
    const renewed = await keyOf(issuer, 'ES256', 'one')
    expect(await answer(signBy(renewed, 'one'))).toBe('accepted')
    expect(await answer(token)).toBe('unauthenticated')
    expect(issuer.asked).toBe(2)
  })

  test.each([1, 2])(
    'stops to be accepted within ten minutes after its key was withdrawn, also where it was seen before (%i)',
    async (looks) => {
      const { issuer, one, clock, token, answer } = await withKey()
      issuer.keys = []
      await keyOf(issuer, 'ES256', 'two')
      // With calls in between the set is fetched anew beside them.
      for (let look = 1; look < looks; look += 1) {
        clock.now += 320_000
        await answer(token)
      }
      clock.now += 600_000
      expect(await answer(token)).not.toBe('accepted')
      expect(await answer(signBy(one, 'one', 'bob'))).not.toBe('accepted')
      for (const late of [token, await signBy(one, 'one', 'bob')]) {
        clock.now += 5_000
        expect(await answer(late)).toBe('unauthenticated')
      }
    },
  )

  test('is accepted for a day while the key set cannot be fetched, which is told once, and once that it is over', async () => {
    const { issuer, one, clock, lines, token, answer } = await withKey()
    issuer.status = 500
    for (let hour = 0; hour < 23; hour += 1) {
      clock.now += 3_600_000
      expect(await answer(token)).toBe('accepted')
      expect(await answer(signBy(one, 'one', `user-${hour}`))).toBe('accepted')
    }
    expect(lines).toEqual([expect.stringMatching(/^JWKS_URL cannot be fetched: .*500/)])
    clock.now += 3_600_000
    expect(await answer(token)).toBe('unavailable')
    issuer.status = 200
    clock.now += 2_000
    expect(await answer(token)).toBe('accepted')
    expect(lines.slice(1)).toEqual([expect.stringContaining('can be fetched again')])
  })

  test.each([
    ['a redirect', (issuer: Issuer) => void (issuer.status = 302)],
    ['an endless answer', (issuer: Issuer) => void issuer.keys.push({ text: 'x'.repeat(300_000) })],
    ['something else', (issuer: Issuer) => void ((issuer as { keys: unknown }).keys = 'none')],
  ])('is not verified with %s', async (_what, spoil) => {
    const issuer = await startIssuer()
    const key = await keyOf(issuer, 'ES256', 'one')
    spoil(issuer)
    expect(await codeOf(setUp({ jwksUrl: issuer.url }).authenticator.authenticate(await signBy(key, 'one')))).toBe('unavailable')
  })

  test('does not shut out those signed with the secret', async () => {
    expect(await setUp({ jwksUrl: 'http://127.0.0.1:9/' }).authenticator.authenticate(await sign(valid()))).toMatchObject({
      userId: 'alice',
    })
  })

  test('may not use a public key as a shared secret', async () => {
    const issuer = await startIssuer()
    await keyOf(issuer, 'RS256', 'one')
    const forged = await sign(valid(), JSON.stringify(issuer.keys[0]))
    expect(await codeOf(setUp({ jwksUrl: issuer.url }).authenticator.authenticate(forged))).toBe('unauthenticated')
  })
})

describe('an app', () => {
  test('is known by its secret, with its scopes', async () => {
    const { authenticator } = setUp()
    expect(await authenticator.authenticate('secret-of-the-shop')).toMatchObject({
      kind: 'app',
      app: 'shop',
      scopes: new Set(['users', 'act', 'audit']),
    })
    expect(await authenticator.authenticate('secret-of-the-auditor')).toMatchObject({
      kind: 'app',
      app: 'auditor',
      scopes: new Set(['audit']),
    })
  })

  test.each(['secret-of-the-sho', 'secret-of-the-shopp', 'SECRET-OF-THE-SHOP', 'shop'])('is not known by %s', async (secret) => {
    expect(await codeOf(setUp().authenticator.authenticate(secret))).toBe('unauthenticated')
  })
})

describe('a revoked device', () => {
  async function revokePhone(users: Users): Promise<number> {
    await users.devices.revoke('alice', 'phone', requester)
    return (await users.devices.refusedUpTo('alice', 'phone'))!
  }

  test('is refused with a token from before, also with one that was verified already', async () => {
    const { authenticator, users } = setUp()
    const { token } = await issueToken(jwtSecret, { userId: 'alice', deviceId: 'phone', ttlSeconds: 60 }, { now: Date.now() - 5 })
    await authenticator.authenticate(token)
    await revokePhone(users)
    expect(await codeOf(authenticator.authenticate(token))).toBe('unauthenticated')
  })

  test('is refused with a token that does not say when it was issued', async () => {
    const { authenticator, users } = setUp()
    await revokePhone(users)
    expect(await codeOf(authenticator.authenticate(await sign({ sub: 'alice', exp: seconds() + 60, deviceId: 'phone' })))).toBe(
      'unauthenticated',
    )
  })

  test('is accepted with a token that was issued a millisecond later', async () => {
    const { authenticator, users } = setUp()
    const revokedAt = await revokePhone(users)
    const { token } = await issueToken(jwtSecret, { userId: 'alice', deviceId: 'phone', ttlSeconds: 60 }, { now: revokedAt + 1 })
    expect(await authenticator.authenticate(token)).toMatchObject({ deviceId: 'phone' })
  })

  test('says nothing of the other devices and of other users', async () => {
    const { authenticator, users } = setUp()
    await revokePhone(users)
    expect(await authenticator.isRevoked('alice', 'phone', null)).toBe(true)
    expect(await authenticator.isRevoked('alice', 'laptop', null)).toBe(false)
    expect(await authenticator.isRevoked('bob', 'phone', null)).toBe(false)
  })
})

describe('a token that is issued here', () => {
  test('holds for as long as asked, to the second above', async () => {
    const { token, expiresAt } = await issueToken(jwtSecret, { userId: 'alice', ttlSeconds: 60 }, { now: 1_700_000_000_500 })
    const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as object
    expect(claims).toEqual({ sub: 'alice', iat: 1_700_000_000.5, exp: 1_700_000_061 })
    expect(expiresAt).toBe('2023-11-14T22:14:21.000Z')
  })
})
