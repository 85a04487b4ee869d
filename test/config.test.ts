import { describe, expect, test } from 'vitest'
import { ConfigError, type Environment, loadConfig } from '../src/config.js'

describe('settings', () => {
  test('all have defaults, and an empty one counts as not set', () => {
    const defaults = {
      host: '127.0.0.1',
      port: 8080,
      dataDir: './data',
      databaseUrl: undefined,
      eventStoreUrl: undefined,
      redisUrl: undefined,
      appKeys: undefined,
      jwtSecret: undefined,
      jwksUrl: undefined,
      jwtIssuer: undefined,
      jwtAudience: undefined,
      allowedOrigins: [],
      publicUrl: undefined,
      roles: new Set(['api', 'gateway', 'projections']),
      fanoutOnWriteMembersMax: 500,
      groupMembersMax: 100_000,
      framesPerSecond: 60,
      handshakesPerAddress: 1_000,
      handshakesMax: 10_000,
      trustedProxies: [],
      logLevel: 'info',
      warnings: [],
    }
    expect(loadConfig({})).toEqual(defaults)
    expect(loadConfig({ HOST: '', PORT: ' ', APP_KEYS: '', JWT_SECRET: '', ROLES: '', LOG_LEVEL: '', DATABASE_URL: '' })).toEqual(defaults)
  })

  test('are read from the environment', () => {
    const config = loadConfig({
      HOST: '0.0.0.0',
      PORT: '0',
      DATABASE_URL: 'postgres://me:secret@db.example/convolog',
      JWKS_URL: 'https://id.example/jwks.json',
      ALLOWED_ORIGINS: 'https://app.example, http://localhost:3000',
      ROLES: 'api, gateway',
      FANOUT_ON_WRITE_MAX: '1',
      FRAMES_PER_SECOND: '0',
      HANDSHAKES_PER_ADDRESS: '7',
      HANDSHAKES_MAX: '0',
      TRUST_PROXY: '10.0.0.1, fd00::/8, loopback',
      LOG_LEVEL: 'silent',
    })
    expect(config).toMatchObject({
      host: '0.0.0.0',
      port: 0,
      databaseUrl: 'postgres://me:secret@db.example/convolog',
      jwksUrl: 'https://id.example/jwks.json',
      allowedOrigins: ['https://app.example', 'http://localhost:3000'],
      roles: new Set(['api', 'gateway']),
      fanoutOnWriteMembersMax: 1,
      framesPerSecond: undefined,
      handshakesPerAddress: 7,
      handshakesMax: 0,
      trustedProxies: ['10.0.0.1', 'fd00::/8', 'loopback'],
      logLevel: 'silent',
    })
  })

  test('a URL may name the hosts of a cluster', () => {
    expect(loadConfig({ EVENTSTORE_URL: 'esdb://a:2113,b:2113,c:2113?tls=false' }).eventStoreUrl).toContain('b:2113')
    expect(loadConfig({ DATABASE_URL: 'postgresql://me@a:5432,b:5432/convolog' }).databaseUrl).toContain('b:5432')
  })

  test.each<[string, Environment]>([
    ['PORT', { PORT: 'http' }],
    ['PORT', { PORT: '65536' }],
    ['PORT', { PORT: '-1' }],
    ['PORT', { PORT: '80.5' }],
    ['DATABASE_URL', { DATABASE_URL: 'mysql://localhost/x' }],
    ['DATABASE_URL', { DATABASE_URL: 'localhost:5432' }],
    ['EVENTSTORE_URL', { EVENTSTORE_URL: 'http://localhost:2113' }],
    ['REDIS_URL', { REDIS_URL: 'localhost' }],
    ['REDIS_URL', { REDIS_URL: 'redis://:pw%zz@127.0.0.1:1' }],
    ['JWKS_URL', { JWKS_URL: 'file:///etc/passwd' }],
    ['JWKS_URL', { JWKS_URL: 'https://me:hidden@id.example/jwks.json' }],
    ['ALLOWED_ORIGINS', { ALLOWED_ORIGINS: 'app.example' }],
    ['ALLOWED_ORIGINS', { ALLOWED_ORIGINS: 'https://app.example/path' }],
    ['PUBLIC_URL', { PUBLIC_URL: 'chat.example' }],
    ['PUBLIC_URL', { PUBLIC_URL: 'https://me:hidden@chat.example' }],
    ['PUBLIC_URL', { PUBLIC_URL: 'https://chat.example/?x' }],
    ['ROLES', { ROLES: 'api,gatway' }],
    ['ROLES', { ROLES: ',' }],
    ['DATABASE_URL', { ROLES: 'api,gateway' }],
    ['FANOUT_ON_WRITE_MAX', { FANOUT_ON_WRITE_MAX: '0' }],
    ['GROUP_MEMBERS_MAX', { GROUP_MEMBERS_MAX: '1e3' }],
    ['FRAMES_PER_SECOND', { FRAMES_PER_SECOND: '-1' }],
    ['HANDSHAKES_PER_ADDRESS', { HANDSHAKES_PER_ADDRESS: 'many' }],
    ['HANDSHAKES_MAX', { HANDSHAKES_MAX: '-1' }],
    ['TRUST_PROXY', { TRUST_PROXY: '10.0.0.0/8, proxy.example' }],
    ['TRUST_PROXY', { TRUST_PROXY: '10.0.0.0/99' }],
    ['TRUST_PROXY', { TRUST_PROXY: 'true' }],
    ['LOG_LEVEL', { LOG_LEVEL: 'verbose' }],
  ])('a wrong %s stops the start with one sentence that names it: %o', (name, env) => {
    expect(() => loadConfig(env)).toThrow(ConfigError)
    expect(() => loadConfig(env)).toThrow(new RegExp(`^${name} [^\n]*\\.$`))
  })

  test.each([
    ['https://chat.example', 'https://chat.example'],
    ['https://chat.example/', 'https://chat.example'],
    ['https://Example.com:443/chat//', 'https://example.com/chat'],
  ])('PUBLIC_URL %s is %s', (given, expected) => expect(loadConfig({ PUBLIC_URL: given }).publicUrl).toBe(expected))

  test('a URL that is wrong is not repeated, it may hold a password', () => {
    expect(() => loadConfig({ DATABASE_URL: 'mysql://me:hidden@localhost/x' })).toThrow(/^(?!.*hidden)/)
  })

  test('a key set that anybody on the way can change is warned about', () => {
    expect(loadConfig({ JWKS_URL: 'http://id.example/jwks.json' }).warnings).toEqual([expect.stringMatching(/^JWKS_URL .*https:/)])
    for (const url of ['https://id.example/', 'http://localhost:1/', 'http://127.0.0.1:1/', 'http://[::1]:1/'])
      expect(loadConfig({ JWKS_URL: url }).warnings).toEqual([])
  })

  test('a node that does not share what it should with others says so', () => {
    const warned = loadConfig({ DATABASE_URL: 'postgres://db/convolog', ROLES: 'gateway' }).warnings
    expect(warned).toEqual([expect.stringContaining('presence and typing')])
    expect(loadConfig({ REDIS_URL: 'redis://cache' }).warnings).toEqual([expect.stringContaining('secrets of its own')])
  })
})

describe('APP_KEYS', () => {
  const all = new Set(['users', 'act', 'audit'])

  test('knows scopes that allow nothing yet, each only where it is named', () => {
    const [key] = loadConfig({ APP_KEYS: 'shop:0123456789abcdef:moderate+feeds+import+review+govern' }).appKeys!
    expect(key?.scopes).toEqual(new Set(['moderate', 'feeds', 'import', 'review', 'govern']))
  })

  test('names secrets and their scopes, and no scope given means users, act and audit', () => {
    expect(loadConfig({ APP_KEYS: 'shop:0123456789abcdef,bot:fedcba9876543210:act+users , log:00112233445566:audit' }).appKeys).toEqual([
      { name: 'shop', secret: '0123456789abcdef', scopes: all },
      { name: 'bot', secret: 'fedcba9876543210', scopes: new Set(['act', 'users']) },
      { name: 'log', secret: '00112233445566', scopes: new Set(['audit']) },
    ])
  })

  test.each([
    'shop',
    'shop:',
    ':hidden',
    'shop:hidden:',
    'shop:hidden:read',
    'shop:hidden:act:x',
    'a b:hidden',
    ',',
    'a:hidden,a:other',
    'a:hidden,b:hidden',
  ])('%s is refused, and no secret repeated', (text) => {
    expect(() => loadConfig({ APP_KEYS: text })).toThrow(/^APP_KEYS (?!.*hidden).*\.$/)
  })

  test('short secrets are accepted with a warning that does not repeat them', () => {
    const { warnings } = loadConfig({ APP_KEYS: 'shop:short', JWT_SECRET: 'tiny' })
    expect(warnings).toHaveLength(2)
    expect(warnings.join()).not.toMatch(/tiny|:short/)
  })
})
