import { Type } from 'typebox'
import { Role, UserId, closedObject } from '../../schemas/common.js'
import { InConversation, MemberPage, MembersAdded, NoQuery, OfMember, PageQuery, Written } from '../../schemas/rest.js'
import { actingUser, reader } from '../callers.js'
import { listMembers } from '../conversation-reads.js'
import { type Api, type RouteParts, pageOptions, shown, written } from '../route-parts.js'

const ADDED_AT_ONCE_MAX = 1_000

const tags = ['Members']
const config = { refusals: ['forbidden', 'not_found', 'direct_conversation'] as const }

export function memberRoutes(app: Api, parts: RouteParts): void {
  const { conversations } = parts

  app.get(
    '/conversations/:conversationId/members',
    {
      schema: {
        operationId: 'listMembers',
        tags,
        summary: 'List the members, in the order of joining',
        params: InConversation,
        querystring: PageQuery,
        response: { 200: MemberPage },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { conversationId } = request.params
      const who = reader(request)
      await shown(parts, request.query.minPosition)
      return listMembers(parts, conversationId, who, pageOptions(request.query))
    },
  )

  app.post(
    '/conversations/:conversationId/members',
    {
      schema: {
        operationId: 'addMembers',
        tags,
        summary: 'Add members to a group',
        description: 'Owner and admins. `seq` is that of the last one.',
        params: InConversation,
        querystring: NoQuery,
        body: closedObject({ userIds: Type.Array(UserId, { minItems: 1, maxItems: ADDED_AT_ONCE_MAX, examples: [['dave']] }) }),
        response: { 200: MembersAdded },
      },
      config,
    },
    async (request) => {
      const { requester } = actingUser(request)
      const added = await conversations.execute(
        request.params.conversationId,
        { type: 'AddMembers', userIds: request.body.userIds },
        requester,
      )
      return { ...written(added), added: added.count }
    },
  )

  app.patch(
    '/conversations/:conversationId/members/:userId',
    {
      schema: {
        operationId: 'changeRole',
        tags,
        summary: "Change a member's role",
        description: 'The owner. Who gives `owner` away becomes admin.',
        params: OfMember,
        querystring: NoQuery,
        body: closedObject({ role: Role }),
        response: { 200: Written },
      },
      config,
    },
    async (request) => {
      const { requester } = actingUser(request)
      const { conversationId, userId } = request.params
      return written(await conversations.execute(conversationId, { type: 'ChangeRole', userId, role: request.body.role }, requester))
    },
  )

  app.delete(
    '/conversations/:conversationId/members/:userId',
    {
      schema: {
        operationId: 'removeMember',
        tags,
        summary: 'Remove a member',
        description: 'The owner anyone, an admin members; oneself is the same as leaving.',
        params: OfMember,
        querystring: NoQuery,
        response: { 200: Written },
      },
      config,
    },
    async (request) => {
      const { requester } = actingUser(request)
      const { conversationId, userId } = request.params
      return written(await conversations.execute(conversationId, { type: 'RemoveMember', userId }, requester))
    },
  )

  app.post(
    '/conversations/:conversationId/join',
    {
      schema: {
        operationId: 'joinConversation',
        tags,
        summary: 'Join an open group',
        description: 'The first to join an empty group owns it.',
        params: InConversation,
        querystring: NoQuery,
        response: { 200: Written },
      },
      config,
    },
    async (request) => {
      const { requester } = actingUser(request)
      return written(await conversations.execute(request.params.conversationId, { type: 'Join' }, requester))
    },
  )

  app.post(
    '/conversations/:conversationId/leave',
    {
      schema: {
        operationId: 'leaveConversation',
        tags,
        summary: 'Leave a group',
        description: 'An owner hands over to the longest-standing admin, else member.',
        params: InConversation,
        querystring: NoQuery,
        response: { 200: Written },
      },
      config,
    },
    async (request) => {
      const { requester } = actingUser(request)
      return written(await conversations.execute(request.params.conversationId, { type: 'Leave' }, requester))
    },
  )
}
