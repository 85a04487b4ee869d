import { isSameJson } from '../canonical-json.js'
import { type Decision, decided, unchanged } from '../decision.js'
import { Refusal, invalidField, notFound, unreachable } from '../errors.js'
import type { Content, ConversationEvent, Role } from '../events.js'
import type { ConversationCommand, ConversationContext, MessageCommand, MessageFacts } from './commands.js'
import type { Member } from './members.js'
import { type ConversationState, type MessageChange, changesSince, contentHashOf, exists, findRecentMessage, messageKey } from './state.js'

type ConversationDecision = Decision<ConversationEvent>
type Of<Type extends ConversationCommand['type']> = Extract<ConversationCommand, { type: Type }>

export const DIFFERENT_REACTIONS_MAX = 50

/**
 * Decides one command of one user. Pure: the same state, command and context give the same decision.
 * @throws {Refusal} with the code that the client gets
 */
export function decide(
  state: ConversationState,
  command: ConversationCommand,
  userId: string,
  context: ConversationContext,
): ConversationDecision {
  switch (command.type) {
    case 'CreateConversation':
      return create(state, command, userId, context)
    case 'UpdateConversation':
      return update(state, command, userId)
    case 'AddMembers':
      return addMembers(state, command, userId, context)
    case 'ChangeRole':
      return changeRole(state, command, userId)
    case 'RemoveMember':
      return removeMember(state, command, userId)
    case 'Join':
      return join(state, userId, context)
    case 'Leave':
      return leave(state, userId)
    case 'SendMessage':
      return send(state, command, userId, context)
    case 'EditMessage':
    case 'RecallMessage':
    case 'AddReaction':
    case 'RemoveReaction':
    case 'PinMessage':
    case 'UnpinMessage':
      return changeMessage(state, command, userId, context)
    default:
      return unreachable(command)
  }
}

// --- the rules that several commands share ---

/** The one membership check of the write side; reads use it through `Conversations.open`. */
export function memberOf(state: ConversationState, userId: string): Member {
  const member = state.members.get(userId)
  if (!member) throw notFound()
  return member
}

const isModerator = ({ role }: Member) => role === 'owner' || role === 'admin'

function requireModerator(member: Member): void {
  if (!isModerator(member)) throw new Refusal('forbidden', 'Only the owner and admins of the conversation may do this.')
}

function requireGroup(state: ConversationState): void {
  if (state.type === 'direct')
    throw new Refusal('direct_conversation', 'This is not possible in a direct conversation: make a group instead.')
}

/** Sending, editing, reacting and pinning. */
function requireMaySpeak(state: ConversationState, member: Member, context: ConversationContext): void {
  if (context.blocked)
    throw new Refusal('blocked', 'One of the two has blocked the other: nothing can be sent here until the block is taken away.')
  if (state.frozen && !isModerator(member))
    throw new Refusal('conversation_frozen', 'The conversation is frozen: only its owner and admins may write now.')
}

function requireRoomFor(state: ConversationState, count: number, { membersMax }: ConversationContext, field: string): void {
  if (state.members.size + count > membersMax)
    throw invalidField(field, `a group has at most ${membersMax} members; this one has ${state.members.size}`)
}

// --- the conversation ---

function create(
  state: ConversationState,
  command: Of<'CreateConversation'>,
  userId: string,
  context: ConversationContext,
): ConversationDecision {
  const isDirect = command.conversationType === 'direct'
  if (exists(state)) return unchanged
  if (isDirect && context.blocked) throw new Refusal('blocked', 'One of the two has blocked the other: no conversation can be opened.')
  const others = new Set(command.memberIds)
  others.delete(userId)
  if (others.size + 1 > context.membersMax) throw invalidField('memberIds', `a group has at most ${context.membersMax} members`)
  const role: Role = isDirect ? 'member' : 'owner'
  return decided({
    type: 'ConversationCreated',
    data: {
      type: command.conversationType,
      ...(command.name === undefined ? {} : { name: command.name }),
      joinPolicy: command.joinPolicy ?? 'invite',
      ...(command.custom === undefined ? {} : { custom: command.custom }),
      members: [{ userId, role }, ...[...others].map((other) => ({ userId: other, role: 'member' as const }))],
    },
  })
}

function update(state: ConversationState, command: Of<'UpdateConversation'>, userId: string): ConversationDecision {
  const member = memberOf(state, userId)
  if (command.name !== undefined || command.joinPolicy !== undefined || command.frozen !== undefined) requireGroup(state)
  if (state.type === 'group') requireModerator(member)
  const changes = changedFields(state, command)
  const events: ConversationEvent[] = Object.keys(changes).length > 0 ? [{ type: 'ConversationUpdated', data: changes }] : []
  if (command.frozen !== undefined && command.frozen !== state.frozen) {
    events.push({ type: command.frozen ? 'ConversationFrozen' : 'ConversationUnfrozen', data: {} })
  }
  return decided(...events)
}

function changedFields(state: ConversationState, { name, joinPolicy, custom }: Of<'UpdateConversation'>) {
  const changes: Extract<ConversationEvent, { type: 'ConversationUpdated' }>['data'] = {}
  if (name !== undefined && name !== state.name) changes.name = name
  if (joinPolicy !== undefined && joinPolicy !== state.joinPolicy) changes.joinPolicy = joinPolicy
  if (custom !== undefined && !isSameJson(custom ?? {}, state.custom)) changes.custom = custom ?? {}
  return changes
}

// --- its members ---

function addMembers(
  state: ConversationState,
  command: Of<'AddMembers'>,
  userId: string,
  context: ConversationContext,
): ConversationDecision {
  const member = memberOf(state, userId)
  requireGroup(state)
  requireModerator(member)
  const added = [...new Set(command.userIds)].filter((id) => !state.members.has(id))
  requireRoomFor(state, added.length, context, 'userIds')
  return decided(...added.map((id): ConversationEvent => ({ type: 'MemberJoined', data: { userId: id, role: 'member' } })))
}

function changeRole(state: ConversationState, command: Of<'ChangeRole'>, userId: string): ConversationDecision {
  const member = memberOf(state, userId)
  requireGroup(state)
  if (member.role !== 'owner') throw new Refusal('forbidden', 'Only the owner gives roles.')
  const target = state.members.get(command.userId)
  if (!target) throw notFound('member')
  if (target.role === command.role) return unchanged
  if (command.userId === userId)
    throw new Refusal('forbidden', 'An owner stops being owner only by making another member the owner, or by leaving.')
  const given: ConversationEvent = { type: 'MemberRoleChanged', data: { userId: command.userId, role: command.role } }
  if (command.role !== 'owner') return decided(given)
  return decided<ConversationEvent>(given, { type: 'MemberRoleChanged', data: { userId, role: 'admin' } })
}

function removeMember(state: ConversationState, command: Of<'RemoveMember'>, userId: string): ConversationDecision {
  const member = memberOf(state, userId)
  requireGroup(state)
  if (command.userId === userId) return leave(state, userId)
  requireModerator(member)
  const target = state.members.get(command.userId)
  if (!target) throw notFound('member')
  if (member.role === 'admin' && target.role !== 'member')
    throw new Refusal('forbidden', 'An admin removes members; only the owner removes admins.')
  return decided({ type: 'MemberRemoved', data: { userId: command.userId } })
}

function join(state: ConversationState, userId: string, context: ConversationContext): ConversationDecision {
  const isMember = state.members.has(userId)
  if (isMember) requireGroup(state)
  if (isMember) return unchanged
  if (!exists(state) || state.type === 'direct' || state.joinPolicy !== 'open') throw notFound()
  requireRoomFor(state, 1, context, 'conversationId')
  return decided({ type: 'MemberJoined', data: { userId, role: state.members.size === 0 ? 'owner' : 'member' } })
}

function leave(state: ConversationState, userId: string): ConversationDecision {
  const member = memberOf(state, userId)
  requireGroup(state)
  const left: ConversationEvent = { type: 'MemberLeft', data: { userId } }
  const heir = member.role === 'owner' ? findHeir(state, userId) : undefined
  if (heir === undefined) return decided(left)
  return decided<ConversationEvent>(left, { type: 'MemberRoleChanged', data: { userId: heir, role: 'owner' } })
}

/** The longest-standing admin, else the longest-standing member. */
function findHeir(state: ConversationState, leavingUserId: string): string | undefined {
  let heir: { userId: string; member: Member } | undefined
  for (const [userId, member] of state.members) {
    if (userId !== leavingUserId && (heir === undefined || standsBefore(member, heir.member))) heir = { userId, member }
  }
  return heir?.userId
}

const standsBefore = (one: Member, other: Member) => (one.role === other.role ? one.rank < other.rank : one.role === 'admin')

// --- messages ---

function send(state: ConversationState, command: Of<'SendMessage'>, userId: string, context: ConversationContext): ConversationDecision {
  const member = memberOf(state, userId)
  // A resend is answered before any rule of today: it gets its first result, whatever was frozen or blocked since.
  const sentBefore = findRecentMessage(state, messageKey(userId, command.clientMessageId)) ?? context.sentBefore
  if (sentBefore !== undefined) return { kind: 'resent', seq: sentBefore }
  requireMaySpeak(state, member, context)
  if (command.replyToSeq !== undefined && context.replyToIsMessage !== true)
    throw invalidField('replyToSeq', 'is not the seq of a message of this conversation')
  const { clientMessageId, content, replyToSeq, mentions } = command
  return decided({
    type: 'MessageSent',
    data: {
      clientMessageId,
      ordinal: state.lastOrdinal + 1,
      content,
      ...(replyToSeq === undefined ? {} : { replyToSeq }),
      ...(mentions === undefined || mentions.length === 0 ? {} : { mentions: [...new Set(mentions)] }),
    },
  })
}

function changeMessage(
  state: ConversationState,
  command: MessageCommand,
  userId: string,
  context: ConversationContext,
): ConversationDecision {
  const member = memberOf(state, userId)
  if (!context.message) throw notFound('message')
  const message = messageNow(state, command, userId, context.message, context.asOf ?? state.head)
  switch (command.type) {
    case 'EditMessage':
      return edit(state, command, userId, member, message, context)
    case 'RecallMessage':
      return recall(command, userId, member, message)
    case 'AddReaction':
      return addReaction(state, command, member, message, context)
    case 'RemoveReaction':
      requireMaySpeak(state, member, context)
      return message.reacted ? decided({ type: 'ReactionRemoved', data: { messageSeq: command.seq, emoji: command.emoji } }) : unchanged
    case 'PinMessage':
      requireMayPin(state, member, context)
      requireNotRecalled(message)
      return message.pinned ? unchanged : decided({ type: 'MessagePinned', data: { messageSeq: command.seq } })
    case 'UnpinMessage':
      requireMayPin(state, member, context)
      return message.pinned ? decided({ type: 'MessageUnpinned', data: { messageSeq: command.seq } }) : unchanged
    default:
      return unreachable(command)
  }
}

/** What was looked up, and the changes since. */
function messageNow(state: ConversationState, command: MessageCommand, userId: string, lookedUp: MessageFacts, asOf: number): MessageFacts {
  const changes = changesSince(state, command.seq, asOf)
  if (changes.length === 0) return lookedUp
  const reactions = new Map(lookedUp.reactions)
  const now = { ...lookedUp, reactions }
  const asked = 'emoji' in command ? command.emoji : undefined
  for (const change of changes) applyChange(now, change, change.userId === userId && change.emoji === asked)
  return now
}

function applyChange(message: MessageFacts & { reactions: Map<string, number> }, change: MessageChange, isTheOneAsked: boolean): void {
  const { emoji = '' } = change
  const count = message.reactions.get(emoji) ?? 0
  switch (change.type) {
    case 'MessageEdited':
      message.contentHash = change.contentHash ?? ''
      return
    case 'MessageRecalled':
      message.recalled = true
      return
    case 'MessagePinned':
      message.pinned = true
      return
    case 'MessageUnpinned':
      message.pinned = false
      return
    case 'ReactionAdded':
      message.reactions.set(emoji, count + 1)
      if (isTheOneAsked) message.reacted = true
      return
    case 'ReactionRemoved':
      if (count > 1) message.reactions.set(emoji, count - 1)
      else message.reactions.delete(emoji)
      if (isTheOneAsked) message.reacted = false
      return
    default:
      return unreachable(change.type)
  }
}

function edit(
  state: ConversationState,
  command: Of<'EditMessage'>,
  userId: string,
  member: Member,
  message: MessageFacts,
  context: ConversationContext,
): ConversationDecision {
  if (message.senderId !== userId) throw new Refusal('forbidden', 'Only its sender edits a message.')
  requireMaySpeak(state, member, context)
  requireNotRecalled(message)
  if (isContentOf(message, command.content)) return unchanged
  return decided({ type: 'MessageEdited', data: { messageSeq: command.seq, content: command.content } })
}

function isContentOf({ content, contentHash }: MessageFacts, other: Content): boolean {
  return contentHash === undefined ? isSameJson(content, other) : contentHash === contentHashOf(other)
}

function recall(command: Of<'RecallMessage'>, userId: string, member: Member, message: MessageFacts): ConversationDecision {
  if (message.senderId !== userId && !isModerator(member))
    throw new Refusal('forbidden', 'Only its sender, the owner and admins recall a message.')
  return message.recalled ? unchanged : decided({ type: 'MessageRecalled', data: { messageSeq: command.seq } })
}

function addReaction(
  state: ConversationState,
  command: Of<'AddReaction'>,
  member: Member,
  message: MessageFacts,
  context: ConversationContext,
): ConversationDecision {
  requireMaySpeak(state, member, context)
  requireNotRecalled(message)
  if (message.reacted) return unchanged
  if (!message.reactions.has(command.emoji) && message.reactions.size >= DIFFERENT_REACTIONS_MAX) {
    throw invalidField('emoji', `a message has at most ${DIFFERENT_REACTIONS_MAX} different reactions`)
  }
  return decided({ type: 'ReactionAdded', data: { messageSeq: command.seq, emoji: command.emoji } })
}

function requireMayPin(state: ConversationState, member: Member, context: ConversationContext): void {
  if (state.type === 'group') requireModerator(member)
  requireMaySpeak(state, member, context)
}

function requireNotRecalled(message: MessageFacts): void {
  if (message.recalled) throw new Refusal('already_recalled', 'The message was recalled: it can no longer be edited, reacted to or pinned.')
}
