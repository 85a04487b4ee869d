/** Reactions and pins: what others put on a message. */
import { NoQuery, OfMessage, OfReaction, Written } from '../../schemas/rest.js'
import { actingUser } from '../callers.js'
import { type Api, type RouteParts, written } from '../route-parts.js'

const changes = [
  { method: 'PUT', verb: 'add', reaction: 'AddReaction', pin: 'PinMessage' },
  { method: 'DELETE', verb: 'remove', reaction: 'RemoveReaction', pin: 'UnpinMessage' },
] as const

export function messageMarkRoutes(app: Api, { conversations }: RouteParts): void {
  for (const { method, verb, reaction, pin } of changes) {
    const isAdding = method === 'PUT'
    const alreadyRecalled = isAdding ? (['already_recalled'] as const) : []

    app.route({
      method,
      url: '/conversations/:conversationId/messages/:seq/reactions/:emoji',
      schema: {
        operationId: `${verb}Reaction`,
        tags: ['Reactions'],
        summary: isAdding ? 'React to a message' : "Take away one's own reaction",
        description: 'A message has at most 50 different reactions.',
        params: OfReaction,
        querystring: NoQuery,
        response: { 200: Written },
      },
      config: { refusals: ['forbidden', 'blocked', 'conversation_frozen', 'not_found', ...alreadyRecalled] },
      handler: async (request) => {
        const { requester } = actingUser(request)
        const { conversationId, seq, emoji } = request.params
        return written(await conversations.execute(conversationId, { type: reaction, seq, emoji }, requester))
      },
    })

    app.route({
      method,
      url: '/conversations/:conversationId/messages/:seq/pin',
      schema: {
        operationId: isAdding ? 'pinMessage' : 'unpinMessage',
        tags: ['Pins'],
        summary: isAdding ? 'Pin a message' : 'Take a pin away',
        description: 'In a group its owner and admins, in a direct conversation both.',
        params: OfMessage,
        querystring: NoQuery,
        response: { 200: Written },
      },
      config: { refusals: ['forbidden', 'blocked', 'conversation_frozen', 'not_found', ...alreadyRecalled] },
      handler: async (request) => {
        const { requester } = actingUser(request)
        const { conversationId, seq } = request.params
        return written(await conversations.execute(conversationId, { type: pin, seq }, requester))
      },
    })
  }
}
