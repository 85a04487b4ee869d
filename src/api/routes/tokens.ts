import { Type } from 'typebox'
import { issueToken } from '../../auth/tokens.js'
import { DeviceId, UserId, closedObject } from '../../schemas/common.js'
import { IssuedToken, NoQuery } from '../../schemas/rest.js'
import { requireApp } from '../callers.js'
import type { Api, RouteParts } from '../route-parts.js'

const TTL_SECONDS_DEFAULT = 3_600

export function tokenRoutes(app: Api, { users, jwtSecret, tokenClaims }: RouteParts): void {
  app.post(
    '/tokens',
    {
      schema: {
        operationId: 'issueToken',
        tags: ['Tokens'],
        summary: "Issue a user's token",
        description:
          "For the server of the app: it has authenticated its user and hands the token to the user's device. Needs the scope `users`.",
        querystring: NoQuery,
        body: closedObject({
          userId: UserId,
          deviceId: Type.Optional(DeviceId),
          ttlSeconds: Type.Optional(
            Type.Integer({
              minimum: 60,
              maximum: 86_400,
              default: TTL_SECONDS_DEFAULT,
              description: 'How long it holds',
              examples: [3_600],
            }),
          ),
        }),
        response: { 201: IssuedToken },
      },
      config: { refusals: ['forbidden'] },
    },
    async (request, reply) => {
      requireApp(request, 'users')
      const { userId, deviceId, ttlSeconds = TTL_SECONDS_DEFAULT } = request.body
      const issuedAt = await users.devices.issueTime(userId, deviceId)
      const token = await issueToken(jwtSecret, { userId, deviceId, ttlSeconds, ...tokenClaims }, { issuedAt })
      return reply.code(201).send(token)
    },
  )
}
