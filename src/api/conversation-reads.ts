/** What REST shows of conversations from the tables: every such read goes through the check of `CheckedReads`. */
import { isoOf } from '../domain/client-event.js'
import type { Reader } from '../domain/checked-reads.js'
import { type Recalls, recentRecalls } from '../domain/conversation/state.js'
import { invalidField, notFound } from '../domain/errors.js'
import type { InboxLine, MemberItem, Message, Page, PageOptions, Receipt, UnreadCounts } from '../projections/read-models.js'
import { PAGE_BYTES_MAX } from '../schemas/common.js'
import type { RouteParts } from './route-parts.js'

type Parts = Pick<RouteParts, 'conversations' | 'readModels'>

export interface MessagesAsked {
  before?: number
  after?: number
  around?: number
  pinned?: boolean
  limit: number
}

/** A page of messages, the head, and whether there is more. @throws {Refusal} */
export function listMessages(
  { conversations, readModels }: Parts,
  conversationId: string,
  who: Reader,
  asked: MessagesAsked,
): Promise<{ items: Message[]; head: number; more: boolean }> {
  return conversations.reads.read(conversationId, who, {
    find: () => readModels.history.list(conversationId, { ...asked, bytesMax: PAGE_BYTES_MAX }),
    reachesTo: ({ asOf }) => asOf,
    knowsRecallsTo: ({ asOf }) => asOf,
    show: ({ items, more }, { state }) => {
      const recalls = recentRecalls(state)
      return { items: items.filter(({ seq }) => seq <= state.head).map((item) => withRecall(item, recalls)), head: state.head, more }
    },
  })
}

/** One message. @throws {Refusal} not_found where `seq` is none */
export async function getMessage({ conversations, readModels }: Parts, conversationId: string, who: Reader, seq: number): Promise<Message> {
  await conversations.reads.openUpTo(conversationId, who, seq, () => notFound('message'))
  return conversations.reads.read(conversationId, who, {
    find: async ({ position }) => {
      const found = await readModels.history.find(conversationId, seq)
      // Of a message that was acknowledged it is never said that it is not there.
      return found.asOf >= seq ? found : readModels.waitFor(position).then(() => readModels.history.find(conversationId, seq))
    },
    reachesTo: ({ asOf }) => asOf,
    knowsRecallsTo: ({ asOf }) => asOf,
    show: ({ message }, { state }) => {
      if (!message || seq > state.head) throw notFound('message')
      return withRecall(message, recentRecalls(state))
    },
  })
}

/** A page of the members. Those who have left meanwhile are left out. @throws {Refusal} */
export function listMembers(
  { conversations, readModels }: Parts,
  conversationId: string,
  who: Reader,
  page: PageOptions,
): Promise<Page<MemberItem>> {
  return conversations.reads.read(conversationId, who, {
    find: () => readModels.members.list(conversationId, page),
    show: ({ items, nextCursor }, { state }) => ({ items: items.filter(({ userId }) => state.members.has(userId)), nextCursor }),
  })
}

/** A page of the members' cursors. @throws {Refusal} invalid_request where `readBy` is no message */
export function listReceipts(
  { conversations, readModels }: Parts,
  conversationId: string,
  who: Reader,
  { readBy, ...page }: PageOptions & { readBy?: number | undefined },
): Promise<Page<Receipt>> {
  return conversations.reads.read(conversationId, who, {
    find: async () => ({
      // By the log: the history may not have it yet.
      isMessage: readBy === undefined || (await conversations.reads.findEvent(conversationId, readBy))?.type === 'MessageSent',
      page: await readModels.receipts.list(conversationId, { ...page, readBy }),
    }),
    show: ({ isMessage, page: { items, nextCursor } }, { state }) => {
      if (!isMessage) throw invalidField('readBy', 'is not the seq of a message of this conversation')
      return { items: items.filter(({ userId }) => state.members.has(userId)), nextCursor }
    },
  })
}

/** A page of a user's inbox, and the position that it shows. @throws {Refusal} */
export function listInbox(
  { conversations: { reads }, readModels }: Parts,
  userId: string,
  page: PageOptions & { hidden?: boolean | undefined },
): Promise<Page<InboxLine> & { position: string }> {
  return reads.readRows(
    () => readModels.inbox.list(userId, page),
    ({ items, ...rest }) => ({
      items: items
        .filter(({ conversationId }) => !reads.hasLeft(conversationId, userId))
        .map((line) => {
          const { conversationId, lastMessage } = line
          const isRecalled = lastMessage !== null && reads.isRecalled(conversationId, lastMessage.seq)
          return isRecalled ? { ...line, lastMessage: { ...lastMessage, preview: null } } : line
        }),
      ...rest,
    }),
  )
}

/** A user's unread counts, and the position that they show. @throws {Refusal} */
export const listUnread = ({ conversations: { reads }, readModels }: Parts, userId: string): Promise<UnreadCounts> =>
  reads.readRows(
    () => readModels.unreadCounts.list(userId, (conversationId) => reads.hasLeft(conversationId, userId)),
    (counts) => counts,
  )

/** The table may not know yet that it was recalled. */
function withRecall(message: Message, recalls: Recalls): Message {
  const recall = recalls.get(message.seq)
  if (!recall) return message
  const { recalledAt, recalledBy } = message
  return { ...message, content: null, recalledAt: recalledAt ?? isoOf(recall.at), recalledBy: recalledBy ?? recall.userId ?? null }
}
