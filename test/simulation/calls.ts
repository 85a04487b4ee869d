import type { Kind, Request } from './answer-check.js'
import type { Call } from './rest.js'

const CONVERSATION = '/conversations/:conversationId'
const MESSAGE = `${CONVERSATION}/messages/:seq`

/** The REST call of a request. */
export function callOf(request: Request): Call {
  const { kind, userId, conversationId, seq, clientMessageId, content, subject, after, limit, bounds, minPosition } = request
  const inConversation = { conversationId }
  const ofMessage = { conversationId, seq: seq ?? 0 }
  const query = minPosition === undefined ? {} : { minPosition }
  const calls: Record<Kind, () => Omit<Call, 'userId'>> = {
    send: () => ({ method: 'POST', path: `${CONVERSATION}/messages`, params: inConversation, body: { clientMessageId, content } }),
    edit: () => ({ method: 'PATCH', path: MESSAGE, params: ofMessage, body: { content } }),
    recall: () => ({ method: 'DELETE', path: MESSAGE, params: ofMessage }),
    react: () => ({ method: 'PUT', path: `${MESSAGE}/reactions/:emoji`, params: { ...ofMessage, emoji: '👍' } }),
    unreact: () => ({ method: 'DELETE', path: `${MESSAGE}/reactions/:emoji`, params: { ...ofMessage, emoji: '👍' } }),
    pin: () => ({ method: 'PUT', path: `${MESSAGE}/pin`, params: ofMessage }),
    read: () => ({ method: 'POST', path: `${CONVERSATION}/read`, params: inConversation, body: { seq } }),
    add: () => ({ method: 'POST', path: `${CONVERSATION}/members`, params: inConversation, body: { userIds: [subject] } }),
    remove: () => ({ method: 'DELETE', path: `${CONVERSATION}/members/:userId`, params: { conversationId, userId: subject ?? '' } }),
    join: () => ({ method: 'POST', path: `${CONVERSATION}/join`, params: inConversation }),
    leave: () => ({ method: 'POST', path: `${CONVERSATION}/leave`, params: inConversation }),
    update: () => ({ method: 'PATCH', path: CONVERSATION, params: inConversation, body: { custom: { note: clientMessageId } } }),
    mark: () => ({ method: 'PATCH', path: '/inbox/:conversationId', params: inConversation, body: { muted: (seq ?? 0) % 2 === 0 } }),
    events: () => ({ method: 'GET', path: `${CONVERSATION}/events`, params: inConversation, query: { ...query, after, limit } }),
    messages: () => ({ method: 'GET', path: `${CONVERSATION}/messages`, params: inConversation, query: { ...query, ...bounds, limit } }),
    message: () => ({ method: 'GET', path: MESSAGE, params: ofMessage, query }),
    inbox: () => ({ method: 'GET', path: '/inbox', query }),
    unread: () => ({ method: 'GET', path: '/unread', query }),
    receipts: () => ({ method: 'GET', path: `${CONVERSATION}/receipts`, params: inConversation, query }),
    members: () => ({ method: 'GET', path: `${CONVERSATION}/members`, params: inConversation, query }),
    conversation: () => ({ method: 'GET', path: CONVERSATION, params: inConversation, query }),
  }
  return { ...calls[kind](), userId }
}
