import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Content } from '../../src/domain/events.js'
import { issueToken } from '../../src/auth/tokens.js'
import { newGroupId } from '../../src/domain/ids.js'
import type { Requester } from '../../src/domain/write-path/streams.js'
import type { Page, PageOptions } from '../../src/projections/read-models.js'
import { NAME_CHARACTERS_MAX, PAGE_BYTES_MAX } from '../../src/schemas/common.js'
import { type TestApp, type TestCaller, JWT_SECRET, callerWith, startTestApp } from '../support/app.js'

/** The longest ids, and texts whose JSON is as long as can be: six bytes a character. */
const longId = (prefix: string, n: number) => `${prefix}${n}`.padEnd(64, 'x')
const longText = (characters: number) => '\u0001'.repeat(characters - 1) + 'x'
const CONVERSATIONS = 1_001
const OTHERS = 201
const LARGE_MESSAGES = 40

const me = longId('me', 0)
const other = longId('other', 0)
const as = (userId: string): Requester => ({ actor: { userId }, correlationId: 'r' })
const others = Array.from({ length: OTHERS }, (_, n) => longId('other', n))

let app: TestApp
let caller: TestCaller
/** All others are members of this one, and have read it. */
let crowd: string
/** Its messages are the largest. */
let large: string

async function create(memberIds: readonly string[], name?: string): Promise<string> {
  const id = newGroupId()
  await app.conversations.create(
    { type: 'CreateConversation', conversationType: 'group', memberIds: [...memberIds], joinPolicy: 'invite', ...(name ? { name } : {}) },
    id,
    as(me),
  )
  return id
}

const send = (id: string, userId: string, clientMessageId: string, content: Content) =>
  app.conversations.send(id, { type: 'SendMessage', clientMessageId, content }, as(userId))

beforeAll(async () => {
  app = await startTestApp()
  caller = callerWith(app, (await issueToken(JWT_SECRET, { userId: me, deviceId: undefined, ttlSeconds: 600 })).token, me)
  await Promise.all(
    Array.from({ length: CONVERSATIONS }, async () => {
      const id = await create([other], longText(NAME_CHARACTERS_MAX))
      await send(id, other, 'm', { type: 'text', text: longText(1_000) })
    }),
  )
  crowd = await create(others)
  for (const userId of others) {
    await app.conversations.markRead(crowd, 0, as(userId))
    await app.users.execute(me, { type: 'AddContact', userId }, as(me))
    await app.users.execute(me, { type: 'BlockUser', userId }, as(me))
    await app.users.execute(me, { type: 'SeeDevice', deviceId: userId, longestOffline: [] }, as(me))
  }
  large = await create([])
  for (let n = 0; n < LARGE_MESSAGES; n++) await send(large, me, `m${n}`, { type: 'text', text: longText(5_000) })
  await app.readModels.waitFor(await app.store.head(), 30_000)
}, 60_000)
afterAll(() => app?.stop())

type Body = { items: unknown[]; nextCursor?: string | null; more?: boolean }

/** Follows a list to its end; each answer keeps to the bound. Gives how many items it had and how many answers it took. */
async function follow(path: string, next: (body: Body) => string | undefined): Promise<{ items: number; answers: number }> {
  let [items, answers] = [0, 0]
  for (let query: string | undefined = ''; query !== undefined; ) {
    const { body, text, status } = await caller.get(`/v1/${path}?limit=200${query}`)
    expect(status, text).toBe(200)
    // Beside the items there are a cursor, a position and the like.
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(PAGE_BYTES_MAX + 1_024)
    items += body.items.length
    answers += 1
    query = next(body)
  }
  return { items, answers }
}

const byCursor = ({ nextCursor }: Body) => (nextCursor ? `&cursor=${nextCursor}` : undefined)
const lastSeq = (items: readonly unknown[]) => (items.at(-1) as { seq: number }).seq

describe('with the largest content every answer keeps to the bound, and all rows are given once:', () => {
  test('the inbox', async () => {
    const { items } = await follow('inbox', byCursor)
    expect(items).toBe(CONVERSATIONS + 2)
  })
  test('members', async () => expect(await follow(`conversations/${crowd}/members`, byCursor)).toEqual({ items: OTHERS + 1, answers: 2 }))
  test('receipts', async () => expect(await follow(`conversations/${crowd}/receipts`, byCursor)).toEqual({ items: OTHERS + 1, answers: 2 }))
  test.each(['contacts', 'blocks', 'devices'])('%s', async (path) =>
    expect(await follow(path, byCursor)).toEqual({ items: OTHERS, answers: 2 }),
  )
  test('messages', async () => {
    const older = ({ items, more }: Body) => (more ? `&before=${(items[0] as { seq: number }).seq}` : undefined)
    const { items, answers } = await follow(`conversations/${large}/messages`, older)
    expect([items, answers > 1]).toEqual([LARGE_MESSAGES, true])
  })
  test('events', async () => {
    const newer = ({ items, more }: Body) => (more ? `&after=${lastSeq(items)}` : undefined)
    const { items, answers } = await follow(`conversations/${large}/events`, newer)
    expect([items, answers > 1]).toEqual([LARGE_MESSAGES + 1, true])
  })
  test('unread counts', async () => {
    const { body, text } = await caller.get('/v1/unread')
    expect(body.conversations).toHaveLength(1_000)
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(PAGE_BYTES_MAX)
  })
})

/** Far fewer than their rows have, so that each list has to cut. */
const FEW_BYTES = 4_096

test.each<[string, number, (options: PageOptions) => Promise<Page<unknown>>]>([
  ['the inbox', CONVERSATIONS + 2, (options) => app.readModels.inbox.list(me, options)],
  ['members', OTHERS + 1, (options) => app.readModels.members.list(crowd, options)],
  ['receipts', OTHERS + 1, (options) => app.readModels.receipts.list(crowd, options)],
  ['contacts', OTHERS, (options) => app.readModels.contacts.list(me, options)],
  ['blocks', OTHERS, (options) => app.readModels.blocks.list(me, options)],
  ['devices', OTHERS, (options) => app.readModels.devices.list(me, options)],
])('%s end a page before it has too many bytes, and lose no row', async (_, count, list) => {
  const rows = new Set<string>()
  let [pages, cursor]: [number, string | undefined] = [0, undefined]
  do {
    const page = await list({ limit: 200, bytesMax: FEW_BYTES, cursor })
    expect(page.items.length).toBeGreaterThan(0)
    if (page.items.length > 1) expect(Buffer.byteLength(JSON.stringify(page.items))).toBeLessThanOrEqual(FEW_BYTES + 2)
    for (const item of page.items) rows.add(JSON.stringify(item))
    pages += 1
    cursor = page.nextCursor ?? undefined
  } while (cursor !== undefined)
  expect([rows.size, pages > Math.ceil(count / 200)]).toEqual([count, true])
})
