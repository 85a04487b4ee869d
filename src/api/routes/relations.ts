/** Contacts and blocks: a user's own lists of other users. */
import type { UserCommand } from '../../domain/user/user.js'
import { NoQuery, OfUser, PageQuery, Positioned, UserPage } from '../../schemas/rest.js'
import { actingUser } from '../callers.js'
import { type Api, type RouteParts, pageOptions, positioned, shown } from '../route-parts.js'

interface Relation {
  path: 'contacts' | 'blocks'
  tag: string
  /** For operation ids and summaries. */
  noun: string
  effect: string
  add: Extract<UserCommand['type'], 'AddContact' | 'BlockUser'>
  remove: Extract<UserCommand['type'], 'RemoveContact' | 'UnblockUser'>
}

const relations: readonly Relation[] = [
  {
    path: 'contacts',
    tag: 'Contacts',
    noun: 'Contact',
    effect: "The caller's presence is then visible to that user, and pushed to its devices, unless one of the two has blocked the other.",
    add: 'AddContact',
    remove: 'RemoveContact',
  },
  {
    path: 'blocks',
    tag: 'Blocks',
    noun: 'Block',
    add: 'BlockUser',
    remove: 'UnblockUser',
    effect:
      'In their direct conversation neither side sends, edits, reacts, pins or types any more, and no new one is opened; neither sees the presence of the other.',
  },
]

export function relationRoutes(app: Api, parts: RouteParts): void {
  for (const relation of relations) register(app, parts, relation)
}

function register(app: Api, parts: RouteParts, { path, tag, noun, effect, add, remove }: Relation): void {
  const { users, readModels } = parts
  const change = { params: OfUser, querystring: NoQuery, response: { 200: Positioned }, tags: [tag] }
  const config = { refusals: ['forbidden'] as const }

  app.get(
    `/${path}`,
    {
      schema: {
        operationId: `list${noun}s`,
        tags: [tag],
        summary: `List one's own ${path}`,
        querystring: PageQuery,
        response: { 200: UserPage },
      },
      config,
    },
    async (request) => {
      const { userId } = actingUser(request)
      await shown(parts, request.query.minPosition)
      return readModels[path].list(userId, pageOptions(request.query))
    },
  )

  app.put(
    `/${path}/:userId`,
    {
      schema: { ...change, operationId: `add${noun}`, summary: `Add a user to one's own ${path}`, description: effect },
      config,
    },
    async (request) => {
      const { userId, requester } = actingUser(request)
      return positioned(await users.execute(userId, { type: add, userId: request.params.userId }, requester))
    },
  )

  app.delete(
    `/${path}/:userId`,
    {
      schema: { ...change, operationId: `remove${noun}`, summary: `Take a user from one's own ${path}` },
      config,
    },
    async (request) => {
      const { userId, requester } = actingUser(request)
      return positioned(await users.execute(userId, { type: remove, userId: request.params.userId }, requester))
    },
  )
}
