import { Type } from 'typebox'
import { closedObject } from '../../schemas/common.js'
import { InConversation, InboxPage, InboxQuery, NoQuery, Positioned, ReadQuery, UnreadCounts } from '../../schemas/rest.js'
import { actingUser } from '../callers.js'
import { listInbox, listUnread } from '../conversation-reads.js'
import { type Api, type RouteParts, pageOptions, positioned, shown } from '../route-parts.js'

const Flag = (description: string) => Type.Optional(Type.Boolean({ description, examples: [true] }))

export function inboxRoutes(app: Api, parts: RouteParts): void {
  const { conversations, users } = parts

  app.get(
    '/inbox',
    {
      schema: {
        operationId: 'listInbox',
        tags: ['Inbox'],
        summary: "List one's own conversations",
        description: "Pinned ones on top, then those with the newest activity. `position` is where a device's `hello` can start from.",
        querystring: InboxQuery,
        response: { 200: InboxPage },
      },
      config: { refusals: ['forbidden'] },
    },
    async (request) => {
      const { userId } = actingUser(request)
      await shown(parts, request.query.minPosition)
      const { hidden, ...page } = request.query
      return listInbox(parts, userId, { ...pageOptions(page), hidden })
    },
  )

  app.patch(
    '/inbox/:conversationId',
    {
      schema: {
        operationId: 'markInbox',
        tags: ['Inbox'],
        summary: 'Pin, mute or hide a conversation for oneself',
        params: InConversation,
        querystring: NoQuery,
        description: 'A new message shows a hidden conversation again.',
        body: closedObject(
          {
            pinned: Flag('On top of the inbox'),
            muted: Flag('Left out of the total of unread messages'),
            hidden: Flag('Left out of the inbox until there is a new message'),
          },
          { minProperties: 1 },
        ),
        response: { 200: Positioned },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { userId, requester } = actingUser(request)
      const { conversationId } = request.params
      const { state } = await conversations.open(conversationId, { userId })
      return positioned(
        await users.execute(userId, { type: 'MarkInbox', conversationId, ...request.body, lastOrdinal: state.lastOrdinal }, requester),
      )
    },
  )

  app.get(
    '/unread',
    {
      schema: {
        operationId: 'listUnread',
        tags: ['Inbox'],
        summary: "Count one's own unread messages",
        description:
          'The conversations with unread messages, newest first, at most 1,000. `total` leaves muted ones out, `mentions` does not.',
        querystring: ReadQuery,
        response: { 200: UnreadCounts },
      },
      config: { refusals: ['forbidden'] },
    },
    async (request) => {
      const { userId } = actingUser(request)
      await shown(parts, request.query.minPosition)
      return listUnread(parts, userId)
    },
  )
}
