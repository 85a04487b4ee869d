import { Seq, closedObject } from '../../schemas/common.js'
import { InConversation, NoQuery, ReadMark, ReceiptPage, ReceiptsQuery } from '../../schemas/rest.js'
import { actingUser, reader } from '../callers.js'
import { listReceipts } from '../conversation-reads.js'
import { type Api, type RouteParts, pageOptions, shown } from '../route-parts.js'

const tags = ['Receipts']

export function receiptRoutes(app: Api, parts: RouteParts): void {
  const { conversations } = parts

  app.post(
    '/conversations/:conversationId/read',
    {
      schema: {
        operationId: 'markRead',
        tags,
        summary: "Move one's own read cursor",
        description: 'Everything up to `seq` is read. A cursor only moves forward.',
        params: InConversation,
        querystring: NoQuery,
        body: closedObject({ seq: Seq }),
        response: { 200: ReadMark },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { requester } = actingUser(request)
      const { readSeq, position, head, unchanged } = await conversations.markRead(
        request.params.conversationId,
        request.body.seq,
        requester,
      )
      return unchanged ? { readSeq, position, seq: head, unchanged } : { readSeq, position }
    },
  )

  app.get(
    '/conversations/:conversationId/receipts',
    {
      schema: {
        operationId: 'listReceipts',
        tags,
        summary: 'Who has received and read up to where',
        params: InConversation,
        querystring: ReceiptsQuery,
        response: { 200: ReceiptPage },
        description: 'null where never. With `readBy` those, other than its sender, who have read that message.',
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { conversationId } = request.params
      const who = reader(request)
      const { readBy, minPosition, ...page } = request.query
      await shown(parts, minPosition)
      return listReceipts(parts, conversationId, who, { ...pageOptions(page), readBy })
    },
  )
}
