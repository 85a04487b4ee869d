import { createHash } from 'node:crypto'
import { List } from 'immutable'
import { canonicalJson } from '../canonical-json.js'
import type { Content, ConversationEvent, ConversationType, Fact, JoinPolicy, JsonObject, Role } from '../events.js'
import { IdMap } from '../id-map.js'
import { Members, type MembersJson } from './members.js'
import { MessageKeys } from './message-keys.js'

/** A change to an earlier message, kept while it is recent. */
export interface MessageChange {
  revision: number
  messageSeq: number
  type: 'MessageEdited' | 'MessageRecalled' | 'ReactionAdded' | 'ReactionRemoved' | 'MessagePinned' | 'MessageUnpinned'
  userId: string | undefined
  at: number
  emoji?: string
  /** Of an edit: see {@link contentHashOf}. It says whether a later edit changes anything, and is small. */
  contentHash?: string
}

/** SHA-256 of the canonical JSON: equal for what is the same content. */
export const contentHashOf = (content: Content): string => createHash('sha256').update(canonicalJson(content)).digest('base64url')

/**
 * Everything after `since` that is needed to decide. What lies before it is asked of the history,
 * and only when the history is past `since`: together they know every message of the conversation.
 */
export interface Recent {
  /** A revision: all later events are held here. */
  since: number
  /** `<senderId> <clientMessageId>` → seq. */
  messages: MessageKeys
  changes: List<MessageChange>
  /** What the two take in memory, about. */
  bytes: number
}

/** A conversation as a fold of its stream. A value: `evolve` gives a new one, so that a decision that fails to append leaves no trace. */
export interface ConversationState {
  /** The last revision, the `seq` that clients see; -1 where there is no conversation. */
  head: number
  type: ConversationType
  name: string | null
  joinPolicy: JoinPolicy
  frozen: boolean
  custom: JsonObject
  createdAt: number
  createdBy: string
  lastOrdinal: number
  /** Seq of the last message, 0 where there is none. */
  lastMessageSeq: number
  members: Members
  ownerId: string | null
  nextRank: number
  /** Sending moves the sender's own read cursor: userId → seq of the last message it sent. */
  lastSent: IdMap<number>
  /** The window, in two generations, so that forgetting costs nothing: the younger fills up, then replaces the older. */
  younger: Recent
  older: Recent
}

/** A generation holds this many revisions; the window is one to two generations. */
export const GENERATION_REVISIONS = 1_000

const nothingRecent = (since: number): Recent => ({ since, messages: MessageKeys.of([]), changes: List(), bytes: 0 })

export const noConversation: ConversationState = {
  head: -1,
  type: 'group',
  name: null,
  joinPolicy: 'invite',
  frozen: false,
  custom: {},
  createdAt: 0,
  createdBy: '',
  lastOrdinal: 0,
  lastMessageSeq: 0,
  members: Members.of([]),
  ownerId: null,
  nextRank: 0,
  lastSent: IdMap.of(),
  younger: nothingRecent(-1),
  older: nothingRecent(-1),
}

export const exists = (state: ConversationState) => state.head >= 0

/** Everything after this revision is in the window. */
export const windowStart = (state: ConversationState) => state.older.since

export const messageKey = (senderId: string, clientMessageId: string) => `${senderId} ${clientMessageId}`

/** The seq of the message with this key, where it is in the window. */
export const findRecentMessage = (state: ConversationState, key: string) => state.younger.messages.get(key) ?? state.older.messages.get(key)

/** The ordinal of the last message at or below `seq` (0: none); undefined where `seq` lies before the window. */
export function findRecentOrdinal(state: ConversationState, seq: number): number | undefined {
  if (seq >= state.lastMessageSeq) return state.lastOrdinal
  if (seq < windowStart(state)) return undefined
  // Ordinals are dense: each later message is one more.
  let later = 0
  for (const { messages } of [state.older, state.younger]) {
    for (const [, messageSeq] of messages) if (messageSeq > seq) later += 1
  }
  return state.lastOrdinal - later
}

/** Changes in the window to one message after `revision`, in their order. */
export function changesSince(state: ConversationState, messageSeq: number, revision: number): MessageChange[] {
  const of = (recent: Recent) => recent.changes.filter((change) => change.messageSeq === messageSeq && change.revision > revision)
  return [...of(state.older), ...of(state.younger)]
}

/** By message: when it was recalled, and by whom. */
export type Recalls = ReadonlyMap<number, Pick<MessageChange, 'at' | 'userId'>>

/** What was recalled within the window: a table that lags may still show it. */
export function recentRecalls(state: ConversationState): Recalls {
  const recalls = new Map<number, MessageChange>()
  for (const { changes } of [state.older, state.younger]) {
    for (const change of changes) if (change.type === 'MessageRecalled') recalls.set(change.messageSeq, change)
  }
  return recalls
}

/** Only which messages they are. */
export const recentlyRecalled = (state: ConversationState): Set<number> => new Set(recentRecalls(state).keys())

/** The state after one more event of the stream. */
export function evolve(state: ConversationState, event: Fact<ConversationEvent>): ConversationState {
  const next = { ...state, head: event.revision }
  if (event.revision - next.younger.since > GENERATION_REVISIONS) {
    next.older = next.younger
    next.younger = nothingRecent(event.revision - 1)
  }
  apply(next, event)
  return next
}

/** `next` is ours alone until it is given out. */
function apply(next: ConversationState, event: Fact<ConversationEvent>): void {
  switch (event.type) {
    case 'ConversationCreated':
      return create(next, event)
    case 'ConversationUpdated':
      if (event.data.name !== undefined) next.name = event.data.name
      if (event.data.joinPolicy !== undefined) next.joinPolicy = event.data.joinPolicy
      if (event.data.custom !== undefined) next.custom = event.data.custom
      return
    case 'ConversationFrozen':
      next.frozen = true
      return
    case 'ConversationUnfrozen':
      next.frozen = false
      return
    case 'MemberJoined':
      return join(next, event.data.userId, event.data.role, event)
    case 'MemberLeft':
    case 'MemberRemoved':
      next.members = next.members.delete(event.data.userId)
      next.lastSent = next.lastSent.delete(event.data.userId)
      if (next.ownerId === event.data.userId) next.ownerId = null
      return
    case 'MemberRoleChanged':
      return changeRole(next, event.data.userId, event.data.role)
    case 'MessageSent': {
      const senderId = event.metadata.actor.userId ?? ''
      next.lastOrdinal = event.data.ordinal
      next.lastMessageSeq = event.revision
      next.lastSent = next.lastSent.set(senderId, event.revision)
      const key = messageKey(senderId, event.data.clientMessageId)
      next.younger = {
        ...next.younger,
        messages: next.younger.messages.add(key, event.revision),
        bytes: next.younger.bytes + MESSAGE_BYTES + key.length,
      }
      return
    }
    case 'MessageEdited':
    case 'MessageRecalled':
    case 'ReactionAdded':
    case 'ReactionRemoved':
    case 'MessagePinned':
    case 'MessageUnpinned':
      next.younger = { ...next.younger, changes: next.younger.changes.push(changeOf(event)), bytes: next.younger.bytes + CHANGE_BYTES }
      return
  }
}

function create(next: ConversationState, event: Fact<Extract<ConversationEvent, { type: 'ConversationCreated' }>>): void {
  const { data, metadata } = event
  next.type = data.type
  next.name = data.name ?? null
  next.joinPolicy = data.joinPolicy
  next.custom = data.custom ?? {}
  next.createdAt = metadata.at
  next.createdBy = metadata.actor.userId ?? ''
  next.members = Members.of(
    data.members.map(({ userId, role }) => {
      if (role === 'owner') next.ownerId = userId
      return [userId, { role, rank: next.nextRank++, joinedSeq: event.revision, joinedAt: metadata.at, joinedOrdinal: 0 }]
    }),
  )
}

function join(next: ConversationState, userId: string, role: Role, { revision, metadata }: Fact<ConversationEvent>): void {
  next.members = next.members.set(userId, {
    role,
    rank: next.nextRank,
    joinedSeq: revision,
    joinedAt: metadata.at,
    joinedOrdinal: next.lastOrdinal,
  })
  next.nextRank += 1
  if (role === 'owner') next.ownerId = userId
}

function changeRole(next: ConversationState, userId: string, role: Role): void {
  const member = next.members.get(userId)
  if (!member) return
  next.members = next.members.set(userId, { ...member, role })
  if (role === 'owner') next.ownerId = userId
  else if (next.ownerId === userId) next.ownerId = null
}

type ChangeEvent = Extract<ConversationEvent, { type: MessageChange['type'] }>

function changeOf({ type, data, revision, metadata }: Fact<ChangeEvent>): MessageChange {
  const change: MessageChange = { revision, messageSeq: data.messageSeq, type, userId: metadata.actor.userId, at: metadata.at }
  if ('emoji' in data) change.emoji = data.emoji
  if ('content' in data) change.contentHash = contentHashOf(data.content)
  return change
}

/** What entries take in memory, about; a message's key comes to its entry. */
const STATE_BYTES = 512
const MEMBER_BYTES = 200
const LAST_SENT_BYTES = 150
const MESSAGE_BYTES = 64
const CHANGE_BYTES = 300
/** A parsed `custom` takes so many times its text. */
const CUSTOM_FACTOR = 8

/** By the object, which is not changed: its text is written once. */
const customBytes = new WeakMap<JsonObject, number>()

function bytesOfCustom(custom: JsonObject): number {
  let bytes = customBytes.get(custom)
  if (bytes === undefined) customBytes.set(custom, (bytes = JSON.stringify(custom).length * CUSTOM_FACTOR))
  return bytes
}

/** How much memory a state holds on to, in bytes: what the bound of a cache counts. */
export function weightOf({ custom, members, lastSent, older, younger }: ConversationState): number {
  const window = older.bytes + younger.bytes
  return STATE_BYTES + bytesOfCustom(custom) + members.size * MEMBER_BYTES + lastSent.size * LAST_SENT_BYTES + window
}

type RecentJson = { since: number; messages: [string, number][]; changes: MessageChange[]; bytes: number }
type StateJson = Omit<ConversationState, 'members' | 'lastSent' | 'younger' | 'older'> & {
  members: MembersJson
  lastSent: [string, number][]
  younger: RecentJson
  older: RecentJson
}

const recentToJson = ({ since, messages, changes, bytes }: Recent): RecentJson => ({
  since,
  messages: [...messages],
  changes: [...changes],
  bytes,
})
/** The map is made when somebody sends: who only opens a conversation does not need it. */
function recentFromJson(json: RecentJson): Recent {
  let messages: MessageKeys | undefined
  return {
    since: json.since,
    get messages() {
      return (messages ??= MessageKeys.of(json.messages))
    },
    changes: List(json.changes),
    bytes: json.bytes,
  }
}

/** For snapshots. A change of shape or order takes a new SNAPSHOT_VERSION; old snapshots are then ignored. */
export const SNAPSHOT_VERSION = 5
export const stateToJson = (state: ConversationState): unknown =>
  ({
    ...state,
    members: state.members.toJson(),
    lastSent: [...state.lastSent],
    younger: recentToJson(state.younger),
    older: recentToJson(state.older),
  }) satisfies StateJson

export function stateFromJson(value: unknown): ConversationState {
  const json = value as StateJson
  return {
    ...json,
    members: Members.fromJson(json.members),
    lastSent: IdMap.of(json.lastSent),
    younger: recentFromJson(json.younger),
    older: recentFromJson(json.older),
  }
}
