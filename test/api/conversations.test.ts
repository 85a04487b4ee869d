import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type TestApp, type TestCaller, directOf, groupOf, say, startTestApp, unique, userOf } from '../support/app.js'

let app: TestApp
beforeAll(async () => {
  app = await startTestApp()
})
afterAll(() => app?.stop())

const create = (user: TestCaller, body: object, key?: string) =>
  user.post('/v1/conversations', body, key === undefined ? {} : { 'idempotency-key': key })

describe('POST /conversations', () => {
  test('a direct conversation refuses what is only for groups, oneself and a crowd', async () => {
    const user = await userOf(app)
    const wrong: [object, string][] = [
      [{ name: 'Us' }, 'name'],
      [{ joinPolicy: 'invite' }, 'joinPolicy'],
      [{ memberIds: [user.id] }, 'memberIds'],
      [{ memberIds: [] }, 'memberIds'],
      [{ memberIds: ['a', 'b'] }, 'memberIds'],
    ]
    for (const [body, field] of wrong)
      expect((await create(user, { type: 'direct', memberIds: ['bob'], ...body })).body).toMatchObject({
        code: 'invalid_request',
        errors: [{ field }],
      })
    expect((await create(user, { type: 'direct', memberIds: ['bob'], custom: { a: 1 } })).body).toMatchObject({
      custom: { a: 1 },
      role: 'member',
      memberCount: 2,
    })
  })

  describe('with an Idempotency-Key', () => {
    const group = { type: 'group', memberIds: ['bob', 'carol'], name: 'Crew', custom: { a: [1] } }

    test('the same key and body give the first result, whatever has happened since', async () => {
      const user = await userOf(app)
      const first = await create(user, group, 'key')
      expect(first.status).toBe(201)
      await user.patch(`/v1/conversations/${first.body.conversationId}`, { name: 'Renamed' })
      await user.post(`/v1/conversations/${first.body.conversationId}/leave`)
      const again = await create(user, { ...group, memberIds: ['carol', 'bob', 'carol', user.id], joinPolicy: 'invite' }, 'key')
      expect([again.status, again.body]).toEqual([200, first.body])
    })

    test('at the same time they make one conversation', async () => {
      const user = await userOf(app)
      const answers = await Promise.all(Array.from({ length: 10 }, () => create(user, group, 'key')))
      expect(answers.filter(({ status }) => status === 200)).toHaveLength(9)
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(1)
      expect(new Set(answers.map(({ body }) => body.conversationId)).size).toBe(1)
    })

    test.each([
      ['another name', { name: 'Other' }],
      ['no name', { name: undefined }],
      ['other members', { memberIds: ['bob'] }],
      ['another policy', { joinPolicy: 'open' }],
      ['other data', { custom: { a: [2] } }],
      ['no data', { custom: undefined }],
      ['another type', { type: 'direct', memberIds: ['bob'], name: undefined, custom: undefined }],
    ])('another body is a conflict: %s', async (_what, change) => {
      const user = await userOf(app)
      await create(user, group, 'key')
      expect((await create(user, { ...group, ...change }, 'key')).body.code).toBe('idempotency_conflict')
    })

    test('a key of a direct conversation gives the first result, and is not for another body', async () => {
      const user = await userOf(app)
      const [one, other] = [unique('one'), unique('other')]
      const first = await create(user, { type: 'direct', memberIds: [one], custom: { a: 1, b: 2 } }, 'key')
      expect(first.status).toBe(201)
      await say(user, first.body.conversationId, 'hello')
      const again = await create(user, { type: 'direct', memberIds: [one], custom: { b: 2, a: 1 } }, 'key')
      expect([again.status, again.body]).toEqual([200, first.body])
      expect((await create(user, { type: 'direct', memberIds: [one] }, 'key')).body.code).toBe('idempotency_conflict')
      expect((await create(user, { type: 'direct', memberIds: [other] }, 'key')).body.code).toBe('idempotency_conflict')
      expect((await create(user, group, 'key')).body.code).toBe('idempotency_conflict')
    })

    test("another user's key, another key and none make another conversation", async () => {
      const [user, other] = [await userOf(app), await userOf(app)]
      const answers = [
        await create(user, group, 'key'),
        await create(other, group, 'key'),
        await create(user, group, 'key 2'),
        await create(user, group),
        await create(user, group),
      ]
      expect(answers.map(({ status }) => status)).toEqual([201, 201, 201, 201, 201])
      expect(new Set(answers.map(({ body }) => body.conversationId)).size).toBe(5)
    })

    test('has 1 to 128 printable characters', async () => {
      const user = await userOf(app)
      for (const key of ['', 'x'.repeat(129), 'ä'])
        expect((await create(user, group, key)).body).toMatchObject({ code: 'invalid_request', errors: [{ field: 'Idempotency-Key' }] })
      expect((await create(user, group, '~'.repeat(128))).status).toBe(201)
    })
  })
})

describe('writes that change nothing', () => {
  test('say so, with the head as seq, and append nothing', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    const at = `/v1/conversations/${await groupOf(owner, member)}`
    const { seq } = await say(owner, at.split('/').at(-1)!, 'hello')
    const message = `${at}/messages/${seq}`
    const writes = [
      () => owner.post(`${at}/members`, { userIds: [member.id] }),
      () => owner.patch(`${at}/members/${member.id}`, { role: 'member' }),
      () => member.post(`${at}/join`),
      () => owner.patch(at, { frozen: false }),
      () => owner.patch(message, { content: { type: 'text', text: 'hello' } }),
      () => owner.del(`${message}/reactions/x`),
      () => owner.del(`${message}/pin`),
      () => owner.post(`${at}/read`, { seq: 0 }),
    ]
    for (const write of writes)
      expect((await write()).body).toMatchObject({ unchanged: true, seq: 1, position: expect.stringMatching(/./) })
    expect((await owner.post(`${at}/members`, { userIds: [member.id] })).body.added).toBe(0)
    for (const path of [`/v1/contacts/${member.id}`, `/v1/blocks/${member.id}`]) {
      expect((await owner.del(path)).body).toEqual({ unchanged: true, position: expect.stringMatching(/./) })
      expect((await owner.put(path)).body).toEqual({ position: expect.any(String) })
      expect((await owner.put(path)).body).toMatchObject({ unchanged: true })
    }
    expect((await owner.get(at)).body.head).toBe(1)
  })

  test('what is the same JSON changes nothing, however it is written', async () => {
    const user = await userOf(app)
    const [first, again] = ['{"a":1,"b":[10,-0]}', '{"b":[1e1,0],"a":1.0}']
    const twice = async (write: (json: string) => Promise<Answer>) => {
      await write(first)
      return (await write(again)).body
    }
    const group = (custom: string) => user.post('/v1/conversations', `{"type":"group","memberIds":[],"custom":${custom}}`, key)
    const key = { 'idempotency-key': 'key' }
    const { conversationId } = (await group(first)).body
    expect((await twice(group)).conversationId).toBe(conversationId)
    const path = `/v1/conversations/${conversationId}`
    const content = (data: string) => `"content":{"type":"custom","data":${data}}`
    const message = await twice((json) => user.post(`${path}/messages`, `{"clientMessageId":"x",${content(json)}}`))
    expect(message).toMatchObject({ duplicate: true })
    expect(await twice((json) => user.patch(`${path}/messages/${message.seq}`, `{${content(json)}}`))).toMatchObject({ unchanged: true })
    expect(await twice((json) => user.patch(path, `{"custom":${json}}`))).toMatchObject({ unchanged: true })
    expect(await twice((json) => user.put(`/v1/users/${user.id}`, `{"custom":${json}}`))).toMatchObject({ unchanged: true })
  })

  test('members are added once, and counted', async () => {
    const owner = await userOf(app)
    const group = await groupOf(owner)
    const { body } = await owner.post(`/v1/conversations/${group}/members`, { userIds: ['dave', 'erin', 'dave', owner.id] })
    expect(body).toEqual({ seq: 2, added: 2, position: expect.any(String) })
  })

  test('what is not there is not found: a member, a message, a conversation', async () => {
    const owner = await userOf(app)
    const group = await groupOf(owner)
    const answers = [
      await owner.del(`/v1/conversations/${group}/members/nobody`),
      await owner.patch(`/v1/conversations/${group}/members/nobody`, { role: 'admin' }),
      await owner.del(`/v1/conversations/${group}/messages/7`),
      await owner.patch('/v1/inbox/g-nowhere', { pinned: true }),
      await owner.post('/v1/conversations/g-nowhere/join'),
    ]
    for (const { body } of answers) expect(body.code).toBe('not_found')
  })
})

describe('messages', () => {
  test('a resend gives the first result, and says that it is one', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    const message = { clientMessageId: 'one', content: { type: 'custom', data: { b: 1, a: 2 } }, mentions: ['bob', 'carol'] }
    const first = await user.post(`/v1/conversations/${group}/messages`, message)
    const again = await user.post(`/v1/conversations/${group}/messages`, {
      ...message,
      content: { data: { a: 2, b: 1 }, type: 'custom' },
      mentions: ['carol', 'bob'],
    })
    expect([first.status, again.status]).toEqual([201, 200])
    expect(again.body).toEqual({ ...first.body, duplicate: true })
    expect(first.body).toEqual({ conversationId: group, seq: 1, ordinal: 1, position: expect.any(String), sentAt: expect.any(String) })
  })

  test('content comes back as it went', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    const contents = [
      { type: 'text', text: '\u2028"\\/\u{1f469}\u200d\u{1f469}\u200d\u{1f467} \t\r\n' },
      { type: 'custom', data: { constructor: 1, '': [null, true, -0.5, 1e21, 'x'], 'a.b': {} } },
    ]
    for (const content of contents) {
      const { seq, position } = (await user.post(`/v1/conversations/${group}/messages`, { clientMessageId: unique('m'), content })).body
      expect((await user.get(`/v1/conversations/${group}/messages/${seq}?minPosition=${position}`)).body.content).toEqual(content)
      expect((await user.get(`/v1/conversations/${group}/events?after=${seq - 1}`)).body.items[0].data.content).toEqual(content)
    }
  })

  test('a message that was acknowledged is found at once, without minPosition', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    for (let n = 0; n < 20; n += 1) {
      const { seq } = await say(user, group, 'hello')
      expect((await user.get(`/v1/conversations/${group}/messages/${seq}`)).status).toBe(200)
    }
  })

  test('are read before, after and around a seq, or those that are pinned, and not by two of these at once', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    let last = { seq: 0, position: '' }
    for (let n = 0; n < 6; n += 1) last = await say(user, group, `m${n}`)
    await user.put(`/v1/conversations/${group}/messages/2/pin`)
    const { position } = (await user.put(`/v1/conversations/${group}/messages/5/pin`)).body
    const seqs = async (query: string) =>
      (await user.get(`/v1/conversations/${group}/messages?minPosition=${position}&${query}`)).body.items.map(
        ({ seq }: { seq: number }) => seq,
      )
    expect(last.seq).toBe(6)
    expect(await seqs('limit=2')).toEqual([5, 6])
    expect(await seqs('before=4')).toEqual([1, 2, 3])
    expect(await seqs('before=4&limit=1')).toEqual([3])
    expect(await seqs('after=4')).toEqual([5, 6])
    expect(await seqs('around=3&limit=3')).toEqual([2, 3, 4])
    expect(await seqs('pinned=true')).toEqual([2, 5])
    expect(await seqs('pinned=false&limit=1')).toEqual([6])
    for (const two of ['before=4&after=1', 'around=3&before=4', 'pinned=true&after=1']) {
      expect((await user.get(`/v1/conversations/${group}/messages?${two}`)).body.code).toBe('invalid_request')
    }
  })

  test('recalled content is gone from every read at once', async () => {
    const [user, other] = [await userOf(app), await userOf(app)]
    const direct = await directOf(user, other)
    for (let round = 0; round < 5; round += 1) {
      const secret = unique('SECRET')
      const { seq, position } = await say(user, direct, secret)
      await other.get(`/v1/inbox?minPosition=${position}`)
      await user.patch(`/v1/conversations/${direct}/messages/${seq}`, { content: { type: 'text', text: `${secret} again` } })
      await user.del(`/v1/conversations/${direct}/messages/${seq}`)
      const reads = ['/messages', `/messages/${seq}`, '/events'].map((path) => other.get(`/v1/conversations/${direct}${path}`))
      for (const { status, text } of await Promise.all([...reads, other.get('/v1/inbox')])) {
        expect(status).toBe(200)
        expect(text).not.toContain(secret)
      }
      // Whether the table has it yet or not: who recalled it and when are told with it.
      const { body } = await other.get(`/v1/conversations/${direct}/messages/${seq}`)
      expect(body).toMatchObject({ content: null, recalledAt: expect.any(String), recalledBy: user.id })
    }
  })
})

describe('reading', () => {
  test('a page leads to the next, and the last to none', async () => {
    const owner = await userOf(app)
    const members = Array.from({ length: 5 }, (_, n) => unique(`member${n}`))
    const {
      body: { conversationId, position },
    } = await create(owner, { type: 'group', memberIds: members })
    const seen: string[] = []
    let cursor = ''
    do {
      const { body } = await owner.get(`/v1/conversations/${conversationId}/members?limit=2&minPosition=${position}${cursor}`)
      seen.push(...body.items.map(({ userId }: { userId: string }) => userId))
      cursor = body.nextCursor === null ? '' : `&cursor=${body.nextCursor}`
    } while (cursor !== '')
    expect(seen).toEqual([owner.id, ...members])
  })

  test('events come page by page, with the head', async () => {
    const user = await userOf(app)
    const group = await groupOf(user)
    await say(user, group, 'one')
    await say(user, group, 'two')
    const seqs = async (query: string) => {
      const { items, head } = (await user.get(`/v1/conversations/${group}/events${query}`)).body
      return [items.map(({ seq }: { seq: number }) => seq), head]
    }
    expect(await seqs('')).toEqual([[0, 1, 2], 2])
    expect(await seqs('?after=-1&limit=1')).toEqual([[0], 2])
    expect(await seqs('?after=0')).toEqual([[1, 2], 2])
    expect(await seqs('?after=99')).toEqual([[], 2])
    expect((await user.get(`/v1/conversations/${group}/events?after=-2`)).body.code).toBe('invalid_request')
  })

  test('who has read a message, other than its sender', async () => {
    const [owner, reader, lazy] = [await userOf(app), await userOf(app), await userOf(app)]
    const group = await groupOf(owner, reader, lazy)
    const { seq } = await say(owner, group, 'read me')
    const { body: read } = await reader.post(`/v1/conversations/${group}/read`, { seq })
    expect(read).toEqual({ readSeq: seq, position: expect.any(String) })
    const { body } = await owner.get(`/v1/conversations/${group}/receipts?readBy=${seq}&minPosition=${read.position}`)
    expect(body.items.map(({ userId }: { userId: string }) => userId)).toEqual([reader.id])
  })

  test('who comes back has read nothing until it reads, also below what it had read', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    const path = `/v1/conversations/${await groupOf(owner, member)}`
    for (const text of ['one', 'two', 'three']) await say(owner, path.split('/').at(-1)!, text)
    await member.post(`${path}/read`, { seq: 3 })
    await member.post(`${path}/leave`)
    const joined = (await owner.post(`${path}/members`, { userIds: [member.id] })).body
    const readSeqAt = async (position: string) => {
      const { items } = (await owner.get(`${path}/receipts?minPosition=${position}`)).body
      return items.find(({ userId }: { userId: string }) => userId === member.id).readSeq
    }
    expect(await readSeqAt(joined.position)).toBeNull()
    const read = (await member.post(`${path}/read`, { seq: 2 })).body
    expect(read).toEqual({ readSeq: 2, position: expect.any(String) })
    expect(await readSeqAt(read.position)).toBe(2)
    expect((await member.post(`${path}/read`, { seq: 1 })).body).toMatchObject({ readSeq: 2, unchanged: true })
  })

  test('inbox and unread counts forget a conversation as soon as its member has left', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    const group = await groupOf(owner, member)
    const { position } = await say(owner, group, 'hello')
    expect((await member.get(`/v1/inbox?minPosition=${position}`)).body.items).toHaveLength(1)
    await owner.del(`/v1/conversations/${group}/members/${member.id}`)
    const [inbox, unread] = await Promise.all([member.get('/v1/inbox'), member.get('/v1/unread')])
    expect(inbox.body.items).toEqual([])
    expect(unread.body).toMatchObject({ total: 0, mentions: 0, conversations: [] })
  })

  test('unread messages are counted, and a muted conversation is left out of the total', async () => {
    const [owner, member] = [await userOf(app), await userOf(app)]
    const group = await groupOf(owner, member)
    await say(owner, group, 'one')
    const { position } = await say(owner, group, 'two')
    expect((await member.get(`/v1/unread?minPosition=${position}`)).body).toMatchObject({
      total: 2,
      mentions: 0,
      conversations: [{ conversationId: group, unread: 2, mentions: 0 }],
    })
    const muted = (await member.patch(`/v1/inbox/${group}`, { muted: true })).body
    expect((await member.get(`/v1/unread?minPosition=${muted.position}`)).body).toMatchObject({ total: 0, conversations: [{ unread: 2 }] })
  })

  test('contacts and blocks are lists of ones own', async () => {
    const [user, other] = [await userOf(app), await userOf(app)]
    for (const list of ['contacts', 'blocks']) {
      for (const id of ['c', 'a', 'b']) await user.put(`/v1/${list}/${id}`)
      const { position } = (await user.del(`/v1/${list}/b`)).body
      expect((await user.get(`/v1/${list}?minPosition=${position}`)).body).toEqual({
        items: [{ userId: 'a' }, { userId: 'c' }],
        nextCursor: null,
      })
      expect((await other.get(`/v1/${list}`)).body).toEqual({ items: [], nextCursor: null })
      expect((await user.put(`/v1/${list}/${user.id}`)).body).toMatchObject({ code: 'invalid_request', errors: [{ field: 'userId' }] })
    }
  })
})
