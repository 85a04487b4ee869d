import { isoOf } from '../domain/client-event.js'
import type { OpenConversation } from '../domain/conversations.js'
import type { RecordedEvent } from '../domain/event-store.js'
import { type ConversationEvent, factOf } from '../domain/events.js'

type Created = Extract<ConversationEvent, { type: 'ConversationCreated' }>

/** A conversation as `GET /conversations/{id}` answers it. */
export function conversationView(conversationId: string, { state, position, member }: OpenConversation) {
  const { type, name, joinPolicy, frozen, custom, createdBy, head, lastOrdinal } = state
  return {
    conversationId,
    type,
    name,
    joinPolicy,
    frozen,
    custom,
    createdAt: isoOf(state.createdAt),
    createdBy,
    memberCount: state.members.size,
    head,
    lastOrdinal,
    role: member?.role ?? null,
    position,
  }
}

/** A conversation as it was when it was created, for its creator. */
export function createdView(conversationId: string, event: RecordedEvent) {
  const { data, metadata, position } = factOf<Created>(event)
  const createdBy = metadata.actor.userId ?? ''
  return {
    conversationId,
    type: data.type,
    name: data.name ?? null,
    joinPolicy: data.joinPolicy,
    frozen: false,
    custom: data.custom ?? {},
    createdAt: isoOf(metadata.at),
    createdBy,
    memberCount: data.members.length,
    head: 0,
    lastOrdinal: 0,
    role: data.members.find(({ userId }) => userId === createdBy)?.role ?? null,
    position,
  }
}
