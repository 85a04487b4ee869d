import { afterAll, beforeAll, expect, test } from 'vitest'
import { type TestApp, groupOf, say, startTestApp, userOf } from '../support/app.js'

let app: TestApp

beforeAll(async () => {
  app = await startTestApp()
})
afterAll(() => app?.stop())

test('a cursor goes on in its own list, and is invalid_request in every other', async () => {
  const [owner, member, other] = [await userOf(app), await userOf(app), await userOf(app)]
  const [group, second] = [await groupOf(owner, member, other), await groupOf(owner, member, other)]
  await groupOf(owner)
  const { seq } = await say(owner, group, 'hello')
  for (const user of [owner, member])
    for (const name of ['bob', 'carol']) {
      await user.put(`/v1/contacts/${name}`)
      await user.put(`/v1/blocks/${name}`)
    }
  for (const conversation of [second, await groupOf(owner)]) await owner.patch(`/v1/inbox/${conversation}`, { hidden: true })
  for (const reader of [member, other]) await reader.post(`/v1/conversations/${group}/read`, { seq })
  const { position } = (await owner.post(`/v1/conversations/${second}/read`, { seq: 0 })).body
  const lists = [
    { user: owner, path: '/v1/inbox?' },
    { user: owner, path: '/v1/inbox?hidden=true&' },
    { user: owner, path: '/v1/contacts?' },
    { user: owner, path: '/v1/blocks?' },
    { user: member, path: '/v1/inbox?' },
    { user: member, path: '/v1/contacts?' },
    ...[group, second].flatMap((id) => [
      { user: owner, path: `/v1/conversations/${id}/members?` },
      { user: owner, path: `/v1/conversations/${id}/receipts?` },
    ]),
    { user: owner, path: `/v1/conversations/${group}/receipts?readBy=${seq}&` },
  ]
  const cursors: string[] = []
  for (const { user, path } of lists) {
    const { body } = await user.get(`${path}limit=1&minPosition=${position}`)
    expect([path, body.nextCursor]).toEqual([path, expect.any(String)])
    cursors.push(body.nextCursor)
  }
  for (const [at, { user, path }] of lists.entries())
    for (const [of, cursor] of cursors.entries()) {
      const { status, body } = await user.get(`${path}limit=1&cursor=${cursor}`)
      const from = lists[of]!.path
      if (of === at) expect([path, from, status, body.items?.length]).toEqual([path, from, 200, 1])
      else expect([path, from, status, body.errors?.[0]?.field]).toEqual([path, from, 400, 'cursor'])
    }
})
