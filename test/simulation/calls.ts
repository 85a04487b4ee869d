import type { Kind, Request } from './answer-check.js'
import type { Call } from './rest.js'

const CONVERSATION = '/conversations/:conversationId'
const MESSAGE = `${CONVERSATION}/messages/:seq`
const REACTION = `${MESSAGE}/reactions/:emoji`

const queryOf = ({ minPosition }: Request) => (minPosition === undefined ? {} : { minPosition })
const inConversation = ({ conversationId }: Request) => ({ conversationId })
const ofMessage = ({ conversationId, seq }: Request) => ({ conversationId, seq: seq ?? 0 })
const withThumb = (asked: Request) => ({ ...ofMessage(asked), emoji: '👍' })

const calls: Record<Kind, (asked: Request) => Omit<Call, 'userId'>> = {
  send: (asked) => ({
    method: 'POST',
    path: `${CONVERSATION}/messages`,
    params: inConversation(asked),
    body: { clientMessageId: asked.clientMessageId, content: asked.content },
  }),
  edit: (asked) => ({ method: 'PATCH', path: MESSAGE, params: ofMessage(asked), body: { content: asked.content } }),
  recall: (asked) => ({ method: 'DELETE', path: MESSAGE, params: ofMessage(asked) }),
  react: (asked) => ({ method: 'PUT', path: REACTION, params: withThumb(asked) }),
  unreact: (asked) => ({ method: 'DELETE', path: REACTION, params: withThumb(asked) }),
  pin: (asked) => ({ method: 'PUT', path: `${MESSAGE}/pin`, params: ofMessage(asked) }),
  read: (asked) => ({ method: 'POST', path: `${CONVERSATION}/read`, params: inConversation(asked), body: { seq: asked.seq } }),
  add: (asked) => ({ method: 'POST', path: `${CONVERSATION}/members`, params: inConversation(asked), body: { userIds: [asked.subject] } }),
  remove: (asked) => ({
    method: 'DELETE',
    path: `${CONVERSATION}/members/:userId`,
    params: { conversationId: asked.conversationId, userId: asked.subject ?? '' },
  }),
  join: (asked) => ({ method: 'POST', path: `${CONVERSATION}/join`, params: inConversation(asked) }),
  leave: (asked) => ({ method: 'POST', path: `${CONVERSATION}/leave`, params: inConversation(asked) }),
  update: (asked) => ({
    method: 'PATCH',
    path: CONVERSATION,
    params: inConversation(asked),
    body: { custom: { note: asked.clientMessageId } },
  }),
  mark: (asked) => ({
    method: 'PATCH',
    path: '/inbox/:conversationId',
    params: inConversation(asked),
    body: { muted: (asked.seq ?? 0) % 2 === 0 },
  }),
  events: (asked) => ({
    method: 'GET',
    path: `${CONVERSATION}/events`,
    params: inConversation(asked),
    query: { ...queryOf(asked), after: asked.after, limit: asked.limit },
  }),
  messages: (asked) => ({
    method: 'GET',
    path: `${CONVERSATION}/messages`,
    params: inConversation(asked),
    query: { ...queryOf(asked), ...asked.bounds, limit: asked.limit },
  }),
  message: (asked) => ({ method: 'GET', path: MESSAGE, params: ofMessage(asked), query: queryOf(asked) }),
  inbox: (asked) => ({ method: 'GET', path: '/inbox', query: queryOf(asked) }),
  unread: (asked) => ({ method: 'GET', path: '/unread', query: queryOf(asked) }),
  receipts: (asked) => ({ method: 'GET', path: `${CONVERSATION}/receipts`, params: inConversation(asked), query: queryOf(asked) }),
  members: (asked) => ({ method: 'GET', path: `${CONVERSATION}/members`, params: inConversation(asked), query: queryOf(asked) }),
  conversation: (asked) => ({ method: 'GET', path: CONVERSATION, params: inConversation(asked), query: queryOf(asked) }),
}

/** The REST call of a request. */
export function callOf(asked: Request): Call {
  return { ...calls[asked.kind](asked), userId: asked.userId }
}
