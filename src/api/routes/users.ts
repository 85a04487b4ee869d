import { Type } from 'typebox'
import { notFound } from '../../domain/errors.js'
import { CUSTOM_BYTES_MAX, Custom, HttpUrl, Name, closedObject } from '../../schemas/common.js'
import { NoQuery, OfUser, Profile, ReadQuery, WrittenProfile } from '../../schemas/rest.js'
import { profileWriter, requireProfileReader } from '../callers.js'
import { type Api, type RouteParts, boundedBytes, shown } from '../route-parts.js'

export function userRoutes(app: Api, parts: RouteParts): void {
  const { users, readModels } = parts

  app.put(
    '/users/:userId',
    {
      schema: {
        operationId: 'setProfile',
        tags: ['Users'],
        summary: "Set a user's profile",
        description: 'Replaces it as a whole. The user itself, or an app with the scope `users`.',
        params: OfUser,
        querystring: NoQuery,
        body: closedObject({ name: Type.Optional(Name), avatarUrl: Type.Optional(HttpUrl), custom: Type.Optional(Custom) }),
        response: { 200: WrittenProfile },
      },
      config: { refusals: ['forbidden'] },
      preValidation: boundedBytes('custom', CUSTOM_BYTES_MAX),
    },
    async (request) => {
      const { userId } = request.params
      const requester = profileWriter(request, userId)
      const { name = null, avatarUrl = null, custom = {} } = request.body
      const profile = { name, avatarUrl, custom }
      const { position, unchanged } = await users.execute(userId, { type: 'SetProfile', profile }, requester)
      return { userId, ...profile, position, ...(unchanged ? { unchanged } : {}) }
    },
  )

  app.get(
    '/users/:userId',
    {
      schema: {
        operationId: 'getProfile',
        tags: ['Users'],
        summary: "Read a user's profile",
        params: OfUser,
        querystring: ReadQuery,
        response: { 200: Profile },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      requireProfileReader(request)
      await shown(parts, request.query.minPosition)
      const profile = await readModels.users.findProfile(request.params.userId)
      if (!profile) throw notFound('profile')
      return profile
    },
  )
}
