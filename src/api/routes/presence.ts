import { Type } from 'typebox'
import { UserId, closedObject } from '../../schemas/common.js'
import { NoQuery, PresenceList } from '../../schemas/rest.js'
import { actingUser } from '../callers.js'
import type { Api, RouteParts } from '../route-parts.js'

const USERS_MAX = 500

export function presenceRoutes(app: Api, { presence }: RouteParts): void {
  app.post(
    '/presence/query',
    {
      schema: {
        operationId: 'queryPresence',
        tags: ['Presence'],
        summary: 'Who is online, as far as the caller may see it',
        description:
          'Visible are those with whom the caller shares a conversation, and those who have the caller as a contact, where neither has blocked the other. All others look offline.',
        querystring: NoQuery,
        body: closedObject({ userIds: Type.Array(UserId, { minItems: 1, maxItems: USERS_MAX, examples: [['bob']] }) }),
        response: { 200: PresenceList },
      },
      config: { refusals: ['forbidden'] },
    },
    async (request) => {
      const { userId } = actingUser(request)
      return { items: await presence.query(userId, request.body.userIds) }
    },
  )
}
