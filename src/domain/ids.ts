import { createHash, randomBytes } from 'node:crypto'

/** Users and devices are named by the app. */
export const USER_ID_PATTERN = '^[A-Za-z0-9_+][A-Za-z0-9_.:@+-]{0,63}$'
const userId = new RegExp(USER_ID_PATTERN)
export const isUserId = (text: string) => userId.test(text)

export const CONVERSATION_ID_MAX = 80
/** Opaque to who asks: one that the server would not make is one that is not there. But no store takes NUL. */
export const CONVERSATION_ID_PATTERN = String.raw`^[^\u0000]*$`
/** A seq is a revision, and those are 32 bits wide in the stores: what is beyond is none. */
export const SEQ_MAX = 2 ** 31 - 1

export const conversationStream = (conversationId: string) => `conversation-${conversationId}`
export const receiptsStream = (conversationId: string) => `receipts-${conversationId}`
export const userStream = (id: string) => `user-${id}`

export const CONVERSATION_PREFIX = 'conversation-'
export const RECEIPTS_PREFIX = 'receipts-'
export const USER_PREFIX = 'user-'

let lastStream = ''
let lastId = ''

/** The part after the prefix: a conversation's or a user's id. Events of a stream come together: the last id is kept. */
export function idOfStream(stream: string): string {
  if (stream !== lastStream) {
    lastStream = stream
    lastId = stream.slice(stream.indexOf('-') + 1)
  }
  return lastId
}

export const newGroupId = () => `g-${randomBytes(16).toString('base64url')}`

/** The same for both sides, so that two people who open it at once open the same one. No user id contains a space. */
export function directConversationId(oneUserId: string, otherUserId: string): string {
  const pair = [oneUserId, otherUserId].sort().join(' ')
  return `d-${createHash('sha256').update(pair).digest('base64url')}`
}
