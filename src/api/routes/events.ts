import { PAGE_BYTES_MAX, PAGE_DEFAULT } from '../../schemas/common.js'
import { EventList, EventsQuery, InConversation } from '../../schemas/rest.js'
import { reader } from '../callers.js'
import { type Api, type RouteParts, openShown } from '../route-parts.js'

const EVERYTHING_AFTER = -1

export function eventRoutes(app: Api, parts: RouteParts): void {
  const { conversations } = parts

  app.get(
    '/conversations/:conversationId/events',
    {
      schema: {
        operationId: 'listEvents',
        tags: ['Events'],
        summary: 'Read the facts in seq order',
        params: InConversation,
        querystring: EventsQuery,
        response: { 200: EventList },
        description: 'What fills a gap: go on with the last seq as `after` as long as there is `more`.',
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request, reply) => {
      const { conversationId } = request.params
      const who = reader(request)
      const { after = EVERYTHING_AFTER, limit = PAGE_DEFAULT, minPosition } = request.query
      await openShown(parts, conversationId, who, minPosition)
      const { items, head, more } = await conversations.reads.events(conversationId, who, { after, limit, bytesMax: PAGE_BYTES_MAX })
      // The events are JSON already, the same bytes as in a push.
      return reply
        .type('application/json; charset=utf-8')
        .serializer(String)
        .send(`{"items":[${items.join(',')}],"head":${head},"more":${more}}` as never)
    },
  )
}
