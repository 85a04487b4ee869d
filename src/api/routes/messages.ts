import { type Static, Type } from 'typebox'
import { invalidField } from '../../domain/errors.js'
import { CONTENT_BYTES_MAX, ClientMessageId, Content, Mentions, PAGE_DEFAULT, Seq, closedObject } from '../../schemas/common.js'
import {
  InConversation,
  Message,
  MessageList,
  MessagesQuery,
  NoQuery,
  OfMessage,
  ReadQuery,
  SentMessage,
  Written,
} from '../../schemas/rest.js'
import { actingUser, reader } from '../callers.js'
import { getMessage, listMessages } from '../conversation-reads.js'
import { type Api, type RouteParts, asIs, boundedBytes, shown, written } from '../route-parts.js'

const tags = ['Messages']
const contentBytes = boundedBytes('content', CONTENT_BYTES_MAX)

const NewMessage = closedObject(
  {
    clientMessageId: ClientMessageId,
    content: Content,
    replyToSeq: Type.Optional({ ...Seq, description: 'The message that this one answers' } as typeof Seq),
    mentions: Type.Optional(Mentions),
  },
  { title: 'NewMessage' },
)

export function messageRoutes(app: Api, parts: RouteParts): void {
  const { conversations } = parts

  app.post(
    '/conversations/:conversationId/messages',
    {
      schema: {
        operationId: 'sendMessage',
        tags,
        summary: 'Send a message',
        params: InConversation,
        querystring: NoQuery,
        body: NewMessage,
        response: { 200: SentMessage, 201: SentMessage },
        description: 'A resend with the same `clientMessageId` and content, of any age, is answered with 200 and the first result.',
      },
      config: { refusals: ['forbidden', 'blocked', 'conversation_frozen', 'not_found', 'idempotency_conflict'] },
      preValidation: contentBytes,
    },
    async (request, reply) => {
      const { requester } = actingUser(request)
      const { conversationId } = request.params
      const sent = await conversations.send(conversationId, { ...request.body, type: 'SendMessage' }, requester)
      return reply.code(sent.duplicate ? 200 : 201).send(sent)
    },
  )

  app.patch(
    '/conversations/:conversationId/messages/:seq',
    {
      schema: {
        operationId: 'editMessage',
        tags,
        summary: 'Edit a message',
        description: 'Its sender.',
        params: OfMessage,
        querystring: NoQuery,
        body: closedObject({ content: Content }),
        response: { 200: Written },
      },
      config: { refusals: ['forbidden', 'blocked', 'conversation_frozen', 'not_found', 'already_recalled'] },
      preValidation: contentBytes,
    },
    async (request) => {
      const { requester } = actingUser(request)
      const { conversationId, seq } = request.params
      return written(await conversations.execute(conversationId, { type: 'EditMessage', seq, content: request.body.content }, requester))
    },
  )

  app.delete(
    '/conversations/:conversationId/messages/:seq',
    {
      schema: {
        operationId: 'recallMessage',
        tags,
        summary: 'Recall a message',
        description: 'Its sender, the owner and admins. Its content, and that of its edits, is then served by no read.',
        params: OfMessage,
        querystring: NoQuery,
        response: { 200: Written },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { requester } = actingUser(request)
      const { conversationId, seq } = request.params
      return written(await conversations.execute(conversationId, { type: 'RecallMessage', seq }, requester))
    },
  )

  readRoutes(app, parts)
}

function readRoutes(app: Api, parts: RouteParts): void {
  app.get(
    '/conversations/:conversationId/messages',
    {
      schema: {
        operationId: 'listMessages',
        tags,
        summary: 'Read the history',
        params: InConversation,
        querystring: MessagesQuery,
        response: { 200: MessageList },
        description: 'Ascending by seq; at most one of `before`, `after`, `around` and `pinned=true`. Without a bound the newest.',
      },
      config: { refusals: ['forbidden', 'not_found'] },
      serializerCompiler: asIs,
    },
    async (request) => {
      const { conversationId } = request.params
      const who = reader(request)
      const { minPosition, limit = PAGE_DEFAULT, ...bounds } = request.query
      requireOneBound(bounds)
      await shown(parts, minPosition)
      return listMessages(parts, conversationId, who, { ...bounds, limit })
    },
  )

  app.get(
    '/conversations/:conversationId/messages/:seq',
    {
      schema: {
        operationId: 'getMessage',
        tags,
        summary: 'Read one message',
        params: OfMessage,
        querystring: ReadQuery,
        response: { 200: Message },
      },
      config: { refusals: ['forbidden', 'not_found'] },
      serializerCompiler: asIs,
    },
    async (request) => {
      const { conversationId, seq } = request.params
      const who = reader(request)
      await shown(parts, request.query.minPosition)
      return getMessage(parts, conversationId, who, seq)
    },
  )
}

type Bounds = Pick<Static<typeof MessagesQuery>, 'before' | 'after' | 'around' | 'pinned'>

function requireOneBound({ before, after, around, pinned }: Bounds): void {
  const given = Object.entries({ before, after, around, pinned: pinned || undefined }).filter(([, value]) => value !== undefined)
  if (given.length > 1)
    throw invalidField(given[1]![0], `goes not together with ${given[0]![0]}: give at most one of before, after, around and pinned`)
}
