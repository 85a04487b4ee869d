import { type Static, Type } from 'typebox'
import type { Conversations, OpenConversation } from '../../domain/conversations.js'
import { invalidField } from '../../domain/errors.js'
import type { RecordedEvent } from '../../domain/event-store.js'
import { newGroupId } from '../../domain/ids.js'
import { CUSTOM_BYTES_MAX, Custom, JoinPolicy, Name, UserId, closedObject } from '../../schemas/common.js'
import { Conversation, InConversation, NoQuery, ReadQuery, Written, nullable } from '../../schemas/rest.js'
import { type ActingUser, actingUser, reader } from '../callers.js'
import { conversationView, createdView } from '../conversation-view.js'
import { DirectKeys, conflict, idempotencyKeyOf, keyedGroupId, requireSameGroup } from '../idempotency.js'
import { type Api, type RouteParts, boundedBytes, openShown, written } from '../route-parts.js'

const MEMBERS_AT_CREATION_MAX = 1_000

const NewConversation = closedObject(
  {
    type: Type.Unsafe<'direct' | 'group'>(
      Type.String({ enum: ['direct', 'group'], description: 'A direct conversation of two exists once', examples: ['group'] }),
    ),
    memberIds: Type.Array(UserId, {
      maxItems: MEMBERS_AT_CREATION_MAX,
      description: 'Beside the caller; exactly one for a direct conversation',
      examples: [['bob', 'carol']],
    }),
    name: Type.Optional(Name),
    joinPolicy: Type.Optional(JoinPolicy),
    custom: Type.Optional(Custom),
  },
  { title: 'NewConversation' },
)
type NewConversation = Static<typeof NewConversation>

const Change = closedObject(
  {
    name: Type.Optional(nullable(Name)),
    joinPolicy: Type.Optional(JoinPolicy),
    frozen: Type.Optional(Type.Boolean({ examples: [false] })),
    custom: Type.Optional(nullable(Custom)),
  },
  { minProperties: 1, description: 'null clears' },
)

export function conversationRoutes(app: Api, parts: RouteParts): void {
  const { conversations } = parts
  const directKeys: Keys['directKeys'] = new DirectKeys()

  app.post(
    '/conversations',
    {
      schema: {
        operationId: 'createConversation',
        tags: ['Conversations'],
        summary: 'Create a group, or open the direct conversation with somebody',
        description:
          'The creator of a group is its owner. A direct conversation that exists already is answered with 200, and so is a repeat with the same `Idempotency-Key`.',
        querystring: NoQuery,
        body: NewConversation,
        response: { 200: Conversation, 201: Conversation },
      },
      config: { refusals: ['forbidden', 'blocked', 'idempotency_conflict'], idempotencyKey: true },
      preValidation: boundedBytes('custom', CUSTOM_BYTES_MAX),
    },
    async (request, reply) => {
      const acting = actingUser(request)
      const key = idempotencyKeyOf(request.headers['idempotency-key'])
      const { created, view } = await (request.body.type === 'direct' ? openDirect : createGroup)(parts, acting, request.body, {
        key,
        directKeys,
      })
      return reply.code(created ? 201 : 200).send(view)
    },
  )

  app.get(
    '/conversations/:conversationId',
    {
      schema: {
        operationId: 'getConversation',
        tags: ['Conversations'],
        summary: 'Read a conversation',
        params: InConversation,
        querystring: ReadQuery,
        response: { 200: Conversation },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { conversationId } = request.params
      const opened = await openShown(parts, conversationId, reader(request), request.query.minPosition)
      return conversationView(conversationId, opened)
    },
  )

  app.patch(
    '/conversations/:conversationId',
    {
      schema: {
        operationId: 'updateConversation',
        tags: ['Conversations'],
        summary: 'Change name, policy or custom data; freeze or thaw',
        params: InConversation,
        querystring: NoQuery,
        description: 'Owner and admins; `custom` of a direct conversation both, and nothing else of it.',
        body: Change,
        response: { 200: Written },
      },
      config: { refusals: ['forbidden', 'not_found', 'direct_conversation'] },
      preValidation: boundedBytes('custom', CUSTOM_BYTES_MAX),
    },
    async (request) => {
      const { requester } = actingUser(request)
      return written(await conversations.execute(request.params.conversationId, { ...request.body, type: 'UpdateConversation' }, requester))
    },
  )
}

type View = ReturnType<typeof conversationView>

interface Opened {
  created: boolean
  view: View
}

interface Keys {
  key: string | undefined
  directKeys: DirectKeys<View>
}

async function openDirect(
  { conversations }: RouteParts,
  { userId, requester }: ActingUser,
  body: NewConversation,
  { key, directKeys }: Keys,
): Promise<Opened> {
  const [otherId, ...more] = body.memberIds
  if (otherId === undefined || more.length > 0) throw invalidField('memberIds', 'names exactly one other user for a direct conversation')
  if (otherId === userId) throw invalidField('memberIds', 'must name somebody else')
  if (body.name !== undefined) throw invalidField('name', 'is not for a direct conversation')
  if (body.joinPolicy !== undefined) throw invalidField('joinPolicy', 'is not for a direct conversation')
  const conversationId = conversations.directId(userId, otherId)
  if (key === undefined) return opened(await create(conversations, conversationId, body, requester))
  const first = directKeys.find(userId, key, body)
  if (first) return { created: false, view: first }
  if (await firstEvent(conversations, keyedGroupId(userId, key))) throw conflict()
  const conversation = opened(await create(conversations, conversationId, body, requester))
  directKeys.remember(userId, key, body, conversation.view)
  return conversation
}

async function createGroup(
  { conversations }: RouteParts,
  { userId, requester }: ActingUser,
  body: NewConversation,
  { key, directKeys }: Keys,
): Promise<Opened> {
  if (key === undefined) return opened(await create(conversations, newGroupId(), body, requester))
  directKeys.find(userId, key, undefined)
  const conversationId = keyedGroupId(userId, key)
  const before = await firstEvent(conversations, conversationId)
  if (before) return repeated(conversationId, before, body)
  const now = await create(conversations, conversationId, body, requester)
  if (now.created) return opened(now)
  // The same key at the same time: the other request was first.
  const first = await firstEvent(conversations, conversationId)
  return first ? repeated(conversationId, first, body) : opened(now)
}

function repeated(conversationId: string, first: RecordedEvent, body: NewConversation): Opened {
  requireSameGroup(first, body)
  return { created: false, view: createdView(conversationId, first) }
}

const opened = (conversation: OpenConversation & { conversationId: string; created: boolean }): Opened => ({
  created: conversation.created,
  view: conversationView(conversation.conversationId, conversation),
})

function create(
  conversations: Conversations,
  conversationId: string,
  { type, memberIds, name, joinPolicy, custom }: NewConversation,
  requester: ActingUser['requester'],
) {
  return conversations.create(
    {
      type: 'CreateConversation',
      conversationType: type,
      memberIds,
      ...(name === undefined ? {} : { name }),
      ...(joinPolicy === undefined ? {} : { joinPolicy }),
      ...(custom === undefined ? {} : { custom }),
    },
    conversationId,
    requester,
  )
}

const firstEvent = (conversations: Conversations, conversationId: string): Promise<RecordedEvent | undefined> =>
  conversations.reads.findEvent(conversationId, 0)
