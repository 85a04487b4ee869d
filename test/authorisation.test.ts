import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createOpenApiDocument } from '../src/api/api.js'
import { clientFrameNotes } from '../src/gateway/asyncapi/examples.js'
import { clientFrames } from '../src/gateway/frames.js'
import { useServer } from './support/app-server.js'
import type { Device } from './support/device.js'
import { type User, sign, unique } from './support/world.js'

/**
 * Who may do what: every call of the OpenAPI document and every frame, by every kind of caller. `sender` has sent the
 * message that the call is about, `member` is another member, `ex-member` was removed. `auditor` is an app with the scope
 * `audit` alone, `bot` one with `act` alone, both naming no user. A call or frame without a line fails.
 */
const calls = table(`
                                owner      admin      sender               member               ex-member  stranger   auditor    bot
issueToken                      forbidden  forbidden  forbidden            forbidden            forbidden  forbidden  forbidden  forbidden
setProfile, one's own           ok         ok         ok                   ok                   ok         ok         forbidden  forbidden
setProfile, another's           forbidden  forbidden  forbidden            forbidden            forbidden  forbidden  forbidden  forbidden
getProfile                      ok         ok         ok                   ok                   ok         ok         forbidden  forbidden
createConversation              ok         ok         ok                   ok                   ok         ok         forbidden  no-user
createConversation, direct      ok         ok         ok                   ok                   ok         ok         forbidden  no-user
getConversation                 ok         ok         ok                   ok                   not_found  not_found  ok         no-user
updateConversation              ok         ok         forbidden            forbidden            not_found  not_found  forbidden  no-user
updateConversation, freezing    ok         ok         forbidden            forbidden            not_found  not_found  forbidden  no-user
listMembers                     ok         ok         ok                   ok                   not_found  not_found  ok         no-user
addMembers                      ok         ok         forbidden            forbidden            not_found  not_found  forbidden  no-user
changeRole                      ok         forbidden  forbidden            forbidden            not_found  not_found  forbidden  no-user
changeRole, giving owner away   ok         forbidden  forbidden            forbidden            not_found  not_found  forbidden  no-user
changeRole, of oneself          forbidden  forbidden  forbidden            forbidden            not_found  not_found  forbidden  no-user
removeMember                    ok         ok         forbidden            forbidden            not_found  not_found  forbidden  no-user
removeMember, an admin          ok         forbidden  forbidden            forbidden            not_found  not_found  forbidden  no-user
removeMember, oneself           ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
joinConversation                ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
joinConversation, open          ok         ok         ok                   ok                   ok         ok         forbidden  no-user
leaveConversation               ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
sendMessage                     ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
sendMessage, frozen             ok         ok         conversation_frozen  conversation_frozen  not_found  not_found  forbidden  no-user
listMessages                    ok         ok         ok                   ok                   not_found  not_found  ok         no-user
getMessage                      ok         ok         ok                   ok                   not_found  not_found  ok         no-user
editMessage                     forbidden  forbidden  ok                   forbidden            not_found  not_found  forbidden  no-user
editMessage, frozen             forbidden  forbidden  conversation_frozen  forbidden            not_found  not_found  forbidden  no-user
recallMessage                   ok         ok         ok                   forbidden            not_found  not_found  forbidden  no-user
recallMessage, frozen           ok         ok         ok                   forbidden            not_found  not_found  forbidden  no-user
addReaction                     ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
addReaction, frozen             ok         ok         conversation_frozen  conversation_frozen  not_found  not_found  forbidden  no-user
removeReaction                  ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
pinMessage                      ok         ok         forbidden            forbidden            not_found  not_found  forbidden  no-user
unpinMessage                    ok         ok         forbidden            forbidden            not_found  not_found  forbidden  no-user
listEvents                      ok         ok         ok                   ok                   not_found  not_found  ok         no-user
markRead                        ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
listReceipts                    ok         ok         ok                   ok                   not_found  not_found  ok         no-user
listInbox                       ok         ok         ok                   ok                   ok         ok         forbidden  no-user
markInbox                       ok         ok         ok                   ok                   not_found  not_found  forbidden  no-user
listUnread                      ok         ok         ok                   ok                   ok         ok         forbidden  no-user
queryPresence                   ok         ok         ok                   ok                   ok         ok         forbidden  no-user
listContacts                    ok         ok         ok                   ok                   ok         ok         forbidden  no-user
addContact                      ok         ok         ok                   ok                   ok         ok         forbidden  no-user
removeContact                   ok         ok         ok                   ok                   ok         ok         forbidden  no-user
listBlocks                      ok         ok         ok                   ok                   ok         ok         forbidden  no-user
addBlock                        ok         ok         ok                   ok                   ok         ok         forbidden  no-user
removeBlock                     ok         ok         ok                   ok                   ok         ok         forbidden  no-user
listDevices                     ok         ok         ok                   ok                   ok         ok         forbidden  no-user
revokeDevice                    ok         ok         ok                   ok                   ok         ok         forbidden  no-user
`)

/** On a WebSocket there are users alone; without a hello, with an expired token and with an app's secret nothing is done. */
const frames = table(`
                                owner      admin      sender               member               ex-member  stranger
hello                           ok         ok         ok                   ok                   ok         ok
message.send                    ok         ok         ok                   ok                   not_found  not_found
message.send, frozen            ok         ok         conversation_frozen  conversation_frozen  not_found  not_found
message.edit                    forbidden  forbidden  ok                   forbidden            not_found  not_found
message.recall                  ok         ok         ok                   forbidden            not_found  not_found
reaction.add                    ok         ok         ok                   ok                   not_found  not_found
reaction.add, frozen            ok         ok         conversation_frozen  conversation_frozen  not_found  not_found
reaction.remove                 ok         ok         ok                   ok                   not_found  not_found
read                            ok         ok         ok                   ok                   not_found  not_found
read, without ref               ok         ok         ok                   ok                   not_found  not_found
ack                             ok         ok         ok                   ok                   not_found  not_found
events.get                      ok         ok         ok                   ok                   not_found  not_found
typing                          ok         ok         ok                   ok                   not_found  not_found
active                          ok         ok         ok                   ok                   not_found  not_found
presence.query                  ok         ok         ok                   ok                   ok         ok
presence.subscribe              ok         ok         ok                   ok                   ok         ok
ping                            ok         ok         ok                   ok                   ok         ok
`)

const roles = ['owner', 'admin', 'sender', 'member', 'ex-member', 'stranger'] as const
type Role = (typeof roles)[number]

const secrets = {
  full: 'secret-of-full-0123456',
  auditor: 'secret-of-auditor-012345',
  bot: 'secret-of-bot-0123456',
  withoutAct: 'secret-without-act-0123',
  withoutUsers: 'secret-without-users-01',
}
const APP_KEYS = `full:${secrets.full},auditor:${secrets.auditor}:audit,bot:${secrets.bot}:act,no-act:${secrets.withoutAct}:users,no-users:${secrets.withoutUsers}:act+audit`
const world = useServer({ env: { APP_KEYS } })

let count = 0
afterAll(() => console.log(`authorisation: ${count} cases`))

/** A group with one of each kind. */
interface Scene {
  users: Record<Role, User>
  target: User
  secondAdmin: User
  conversationId: string
  seq: number
}

async function scene(variant = ''): Promise<Scene> {
  const [owner, admin, sender, member, exMember, stranger, target, secondAdmin] = world().users(
    'owner',
    'admin',
    'sender',
    'member',
    'ex',
    'stranger',
    'target',
    'admin2',
  )
  const group = await owner.group([admin, sender, member, exMember, target, secondAdmin], variant === 'open' ? { joinPolicy: 'open' } : {})
  const path = `/v1/conversations/${group.conversationId}`
  for (const one of [admin, secondAdmin]) await owner.write('PATCH', `${path}/members/${one.id}`, { role: 'admin' })
  await owner.remove(group, exMember)
  const { seq } = await sender.send(group)
  if (variant === 'frozen') await owner.write('PATCH', path, { frozen: true })
  return {
    users: { owner, admin, sender, member, 'ex-member': exMember, stranger },
    target,
    secondAdmin,
    conversationId: group.conversationId,
    seq,
  }
}

describe('REST', () => {
  interface Operation {
    operationId: string
    requestBody?: { content: { 'application/json': { example: unknown } } }
  }
  const operations = new Map<string, { method: string; path: string; body: unknown }>()

  beforeAll(async () => {
    const { paths } = (await createOpenApiDocument()) as { paths: Record<string, Record<string, Operation>> }
    for (const [path, methods] of Object.entries(paths)) {
      for (const [method, { operationId, requestBody }] of Object.entries(methods))
        operations.set(operationId, { method: method.toUpperCase(), path, body: requestBody?.content['application/json'].example })
    }
  })

  test('every call of the OpenAPI document has a line, and every line is a call', () => {
    expect([...new Set([...calls.keys()].map(nameOf))].sort()).toEqual([...operations.keys()].sort())
  })

  /** What the document's example does not say. */
  const bodies: Record<string, (scene: Scene) => unknown> = {
    'createConversation, direct': ({ target }) => ({ type: 'direct', memberIds: [target.id] }),
    'updateConversation, freezing': () => ({ frozen: true }),
    changeRole: () => ({ role: 'admin' }),
    'changeRole, giving owner away': () => ({ role: 'owner' }),
    'changeRole, of oneself': () => ({ role: 'member' }),
    markRead: ({ seq }) => ({ seq }),
  }
  const targets: Record<string, (scene: Scene, caller: User) => User> = {
    "setProfile, one's own": (_scene, caller) => caller,
    'changeRole, of oneself': (_scene, caller) => caller,
    'removeMember, oneself': (_scene, caller) => caller,
    'removeMember, an admin': ({ secondAdmin }) => secondAdmin,
  }

  async function outcomeOf(line: string, at: Scene, caller: User, headers: Record<string, string>): Promise<string> {
    const { method, path, body } = operations.get(nameOf(line))!
    const target = targets[line]?.(at, caller) ?? at.target
    const given: Record<string, string> = {
      conversationId: at.conversationId,
      seq: String(at.seq),
      emoji: encodeURIComponent('👍'),
      userId: target.id,
      deviceId: 'phone',
    }
    const sent =
      bodies[line]?.(at) ??
      (nameOf(line) === 'sendMessage' ? { clientMessageId: unique('m'), content: { type: 'text', text: 'Hello' } } : body)
    const answer = await world().call<{ code?: string }>(
      path.replace(/\{(\w+)\}/g, (_, name: string) => given[name]!),
      { method, headers, ...(sent === undefined ? {} : { body: sent }) },
    )
    count += 1
    if (answer.status < 300) return 'ok'
    return answer.body.code === 'invalid_request' && JSON.stringify(answer.body).includes('On-Behalf-Of') ? 'no-user' : answer.body.code!
  }

  const bearer = (token: string, more: Record<string, string> = {}) => ({ authorization: `Bearer ${token}`, ...more })

  describe.each([...calls.keys()])('%s', (line) => {
    const expected = calls.get(line)!
    const byRole = Object.fromEntries(roles.map((role) => [role, expected[role]]))
    const isRead = () => operations.get(nameOf(line))!.method === 'GET'
    let shared: Scene
    beforeAll(async () => {
      shared = await scene(variantOf(line))
      if (nameOf(line) === 'getProfile') await withProfile(shared.target)
    })

    /** Each on a scene of its own, unless it only reads. */
    async function outcomes(headersOf: (user: User) => Record<string, string>): Promise<Record<string, string>> {
      const found = await Promise.all(
        roles.map(async (role) => {
          const at = isRead() ? shared : await scene(variantOf(line))
          const user = at.users[role]
          if (line === 'revokeDevice') await user.connect({ deviceId: 'phone' })
          return [role, await outcomeOf(line, at, user, headersOf(user))]
        }),
      )
      return Object.fromEntries(found) as Record<string, string>
    }

    test('by a user', async () => expect(await outcomes(({ token }) => bearer(token))).toEqual(byRole))

    test('by an app for a user', async () =>
      expect(await outcomes(({ id }) => bearer(secrets.bot, { 'on-behalf-of': id }))).toEqual(byRole))

    test('by an app without the scope, for each user', async () => {
      const secret = line === 'issueToken' || isOfProfiles(line) ? secrets.withoutUsers : secrets.withoutAct
      for (const role of roles) {
        const user = shared.users[role]
        expect(
          await outcomeOf(line, shared, user, isOfProfiles(line) ? bearer(secret) : bearer(secret, { 'on-behalf-of': user.id })),
          role,
        ).toBe('forbidden')
      }
    })

    test('by an app that names no user', async () => {
      const { owner } = shared.users
      expect(await outcomeOf(line, shared, owner, bearer(secrets.auditor))).toBe(expected['auditor'])
      expect(await outcomeOf(line, shared, owner, bearer(secrets.bot))).toBe(expected['bot'])
    })

    test('by nobody, with an expired, foreign or unsigned token, and by a user for another', async () => {
      const { owner } = shared.users
      const past = Math.floor(Date.now() / 1_000) - 1
      expect(await outcomeOf(line, shared, owner, {})).toBe('unauthenticated')
      expect(await outcomeOf(line, shared, owner, bearer(sign({ sub: owner.id, exp: past })))).toBe('unauthenticated')
      expect(await outcomeOf(line, shared, owner, bearer(sign({ sub: owner.id }, 'another-secret')))).toBe('unauthenticated')
      expect(await outcomeOf(line, shared, owner, bearer(sign({ sub: owner.id }, '', { alg: 'none' })))).toBe('unauthenticated')
      expect(await outcomeOf(line, shared, owner, bearer(owner.token, { 'on-behalf-of': owner.id }))).toBe('no-user')
    })
  })

  test('an app with the scope "users" issues tokens, and writes and reads profiles', async () => {
    const at = await scene()
    await withProfile(at.target)
    for (const line of ['issueToken', 'getProfile', "setProfile, one's own", "setProfile, another's"]) {
      expect(await outcomeOf(line, at, at.users.owner, bearer(secrets.withoutAct)), line).toBe('ok')
    }
  })

  /** A profile that reads show. */
  async function withProfile(user: User): Promise<void> {
    const { position } = await user.write('PUT', `/v1/users/${user.id}`, { name: 'Target' })
    await user.get(`/v1/users/${user.id}?minPosition=${position}`)
  }
})

describe('WebSocket', () => {
  test('every frame has a line, and every line is a frame', () => {
    expect([...new Set([...frames.keys()].map(nameOf))].sort()).toEqual(Object.keys(clientFrames).sort())
  })

  /** The documented example, in this scene. */
  function frameOf(line: string, { conversationId, seq }: Scene, token: string): Record<string, unknown> {
    const { example } = clientFrameNotes[nameOf(line) as keyof typeof clientFrames]
    const frame: Record<string, unknown> = { ...example }
    if ('conversationId' in frame) frame['conversationId'] = conversationId
    if ('seq' in frame) frame['seq'] = seq
    if ('clientMessageId' in frame) frame['clientMessageId'] = unique('m')
    if ('token' in frame) Object.assign(frame, { token, position: undefined })
    if (variantOf(line) === 'without ref') delete frame['ref']
    return frame
  }

  async function outcomeOf(device: Device, frame: Record<string, unknown>): Promise<string> {
    count += 1
    const before = device.frames.length
    const ref = device.nextRef()
    device.send('ref' in frame ? { ...frame, ref } : frame)
    if ('ref' in frame && frame['type'] !== 'ping') return codeOf(await device.answerTo(ref))
    await device.settled()
    return codeOf(device.frames.slice(before).find(({ type, ref: of }) => type === 'error' && of === undefined))
  }
  const codeOf = (answer: { type: string; code?: string } | undefined) => (answer?.type === 'error' ? answer.code! : 'ok')

  test.each([...frames.keys()])('%s, by each user', async (line) => {
    const expected = frames.get(line)!
    const found = roles.map(async (role) => {
      const at = await scene(variantOf(line))
      const user = at.users[role]
      const device = line === 'hello' ? await user.open() : await user.connect()
      expect(await outcomeOf(device, frameOf(line, at, user.token)), role).toBe(expected[role])
      expect(device.closeCode, role).toBeUndefined()
    })
    await Promise.all(found)
  })

  test.each(Object.keys(clientFrames))('%s, by nobody, with an expired token, and by an app', async (type) => {
    const at = await scene()
    const { owner } = at.users
    if (type !== 'hello' && type !== 'ping') {
      const device = await owner.open()
      device.send(frameOf(type, at, ''))
      expect(await device.waitFor(() => true, 'an answer')).toMatchObject({ type: 'error', code: 'unauthenticated' })
      expect(device.closeCode).toBeUndefined()
    }
    const refused = { 4402: sign({ sub: owner.id, exp: Math.floor(Date.now() / 1_000) - 1 }), 4501: secrets.full }
    for (const [closeCode, token] of Object.entries(refused)) {
      const device = await owner.open()
      device.send({ type: 'hello', ref: 1_000, token })
      // At once after it, before the server can have looked at the token.
      if (type !== 'hello') device.send(frameOf(type, at, token))
      expect(await device.waitForClose(), type).toBe(Number(closeCode))
      expect(device.ofType('ok'), type).toEqual([])
    }
    count += 3
    // Nothing of it has happened.
    expect((await owner.events(at)).at(-1)!.seq).toBe(at.seq)
  })
})

/** Lines by name; each outcome by the heading of its column. */
function table(text: string): Map<string, Record<string, string>> {
  const [head, ...lines] = text.split('\n').filter((line) => line.trim() !== '')
  const columns = head!.trim().split(/\s+/)
  return new Map(
    lines.map((line) => {
      const [name, ...outcomes] = line.trim().split(/\s{2,}/)
      if (outcomes.length !== columns.length) throw new Error(`${columns.length} outcomes are needed: ${line}`)
      return [name!, Object.fromEntries(columns.map((column, index) => [column, outcomes[index]!]))]
    }),
  )
}

const nameOf = (line: string) => line.split(', ')[0]!
const variantOf = (line: string) => line.split(', ')[1] ?? ''
/** Apps see and write profiles by the scope `users`, without a user. */
const isOfProfiles = (line: string) => nameOf(line) === 'setProfile' || nameOf(line) === 'getProfile'
