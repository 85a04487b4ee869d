import { canonicalJson } from './canonical-json.js'
import { CheckedReads, type OpenConversation, type Reader } from './checked-reads.js'
import { isoOf } from './client-event.js'
import type { ConversationCommand, ConversationContext, MessageCommand, MessageFacts } from './conversation/commands.js'
import { decide, memberOf } from './conversation/decide.js'
import {
  type ConversationState,
  SNAPSHOT_VERSION,
  evolve,
  exists,
  findRecentMessage,
  findRecentOrdinal,
  messageKey,
  noConversation,
  stateFromJson,
  stateToJson,
  weightOf,
  windowStart,
} from './conversation/state.js'
import { Refusal, invalidField, notFound, unavailable } from './errors.js'
import { type EventStore, type Position, type RecordedEvent, StoreUnavailable, type StreamPage } from './event-store.js'
import type { ConversationEvent, MessageSent, ReceiptEvent } from './events.js'
import type { History } from './history.js'
import { SEQ_MAX, conversationStream, directConversationId, receiptsStream } from './ids.js'
import type { Logger } from './logger.js'
import {
  type ReceiptsCommand,
  type ReceiptsContext,
  type ReceiptsState,
  cursorOf,
  decideReceipts,
  evolveReceipts,
  isUnchanged,
  noReceipts,
  receiptsFromJson,
  receiptsToJson,
} from './receipts/receipts.js'
import { RecallsAhead } from './recalls-ahead.js'
import { RecentChanges } from './recent-changes.js'
import { SentIds } from './sent-ids.js'
import type { SnapshotStore } from './snapshot-store.js'
import type { Users } from './users.js'
import { type Decider, type Folded, type Requester, Streams } from './write-path/streams.js'

export type { OpenConversation, Reader } from './checked-reads.js'

/** As clients get it. */
export interface SentMessage {
  conversationId: string
  seq: number
  ordinal: number
  position: Position
  sentAt: string
  /** Only where it was sent before: this is the first result. */
  duplicate?: true
}

export interface Written {
  /** Of the last new fact; the head where nothing changed. */
  seq: number
  position: Position
  unchanged: boolean
}

export interface ReadMark {
  readSeq: number
  /** Of the conversation, the `seq` of a write that changes nothing. */
  head: number
  position: Position
  unchanged: boolean
}

export interface OpenedUpTo {
  state: ConversationState
  position: Position
  /** Of the member. */
  joinedSeq: number
}

export interface ConversationsOptions {
  store: EventStore
  snapshots: SnapshotStore
  history: History
  users: Users
  logger: Logger
  membersMax: number
  /** Bound of the state cache, in bytes. */
  cacheWeightMax: number
  /** Other nodes write to the same log. */
  isShared?: boolean
}

const conversationDecider: Decider<ConversationState, ConversationCommand, ConversationContext, ConversationEvent> = {
  initial: noConversation,
  streamOf: conversationStream,
  evolve,
  decide: (state, command, context, actor) => decide(state, command, actor.userId ?? '', context),
  isCurrent: ({ asOf, strangerId, missingSeq }, state) =>
    (asOf === undefined || asOf >= windowStart(state)) &&
    (strangerId === undefined || !state.members.has(strangerId)) &&
    (missingSeq === undefined || missingSeq > state.head),
  weightOf,
  bytesOf: bytesOfCommand,
  snapshotVersion: SNAPSHOT_VERSION,
  toJson: stateToJson,
  fromJson: stateFromJson,
}

/** As much as a `custom` may have. */
const CUSTOM_BYTES = 4 << 10

/** Only content is large. */
function bytesOfCommand(command: ConversationCommand): number {
  if (!('content' in command)) return 'custom' in command ? CUSTOM_BYTES : 0
  const { content } = command
  return content.type === 'text' ? content.text.length : JSON.stringify(content).length
}

/** Holds the look-ups of one command. */
type Found = Partial<ConversationContext>

/** Nothing is looked up. */
const nothing: ReceiptsContext = {}

/** A conversation's cursors in memory, and one of them. */
const STATE_BYTES = 256
const CURSOR_BYTES = 200

/** Of the bound of the state cache so much is for receipts, beside it. */
const RECEIPTS_SHARE = 1 / 4

const receiptsDecider: Decider<ReceiptsState, ReceiptsCommand, ReceiptsContext, ReceiptEvent> = {
  initial: noReceipts,
  streamOf: receiptsStream,
  evolve: evolveReceipts,
  decide: decideReceipts,
  isCurrent: () => true,
  weightOf: (state) => STATE_BYTES + state.cursors.size * CURSOR_BYTES,
  snapshotVersion: 2,
  toJson: receiptsToJson,
  fromJson: receiptsFromJson,
}

/** All that is done to and asked of conversations, whoever asks: REST and gateway alike. */
export class Conversations {
  readonly #store: EventStore
  readonly #history: History
  readonly #users: Users
  readonly #membersMax: number
  readonly #recentChanges = new RecentChanges()
  readonly reads: CheckedReads
  /** Names the messages that live delivery blanks although the feed has not brought their recalls. */
  readonly recallsAhead = new RecallsAhead()
  readonly #sentIds: SentIds
  readonly #streams: Streams<ConversationState, ConversationCommand, ConversationContext, ConversationEvent>
  readonly #receipts: Streams<ReceiptsState, ReceiptsCommand, ReceiptsContext, ReceiptEvent>

  constructor({ store, snapshots, history, users, logger, membersMax, cacheWeightMax, isShared = false }: ConversationsOptions) {
    this.#store = store
    this.#history = history
    this.#sentIds = new SentIds(history)
    this.#users = users
    this.#membersMax = membersMax
    this.#streams = new Streams({
      decider: conversationDecider,
      prepare: (...asked) => this.#prepare(...asked),
      store,
      snapshots,
      logger,
      cacheWeightMax,
      isShared,
    })
    this.reads = new CheckedReads({ states: this.#streams, store, history, recentChanges: this.#recentChanges, isShared })
    this.#receipts = new Streams({
      decider: receiptsDecider,
      prepare: (id, command, { state }) => this.#prepareReceipt(id, command, state),
      store,
      snapshots,
      logger,
      cacheWeightMax: cacheWeightMax * RECEIPTS_SHARE,
      isShared,
    })
  }

  // --- reading ---

  /** Opens a conversation for somebody who may see it; what is read of it goes through `reads`. @throws {Refusal} not_found */
  open(conversationId: string, reader: Reader): Promise<OpenConversation> {
    return this.reads.open(conversationId, reader)
  }

  /** The folded state, for those who have checked who may see it. @throws {Refusal} unavailable */
  async stateOf(conversationId: string): Promise<ConversationState> {
    return (await this.#streams.load(conversationId)).state
  }

  // --- writing ---

  /** True where the folded state is in memory, so that opening the conversation costs no read of the log. */
  isInMemory(conversationId: string): boolean {
    return this.#streams.peek(conversationId) !== undefined
  }

  /** Creates a group or opens the direct conversation of two; `created` is false where it was there. @throws {Refusal} */
  async create(
    command: Extract<ConversationCommand, { type: 'CreateConversation' }>,
    conversationId: string,
    requester: Requester,
  ): Promise<OpenConversation & { conversationId: string; created: boolean }> {
    const outcome = await this.#streams.execute(conversationId, command, requester)
    const { state, position } = outcome.folded
    return { conversationId, state, position, member: memberOf(state, requester.actor.userId ?? ''), created: outcome.kind === 'appended' }
  }

  /** The direct conversation's id of two users. */
  directId = directConversationId

  /** Everything but creating and sending: the last new fact, or unchanged. @throws {Refusal} */
  async execute(
    conversationId: string,
    command: Exclude<ConversationCommand, { type: 'CreateConversation' | 'SendMessage' }>,
    requester: Requester,
  ): Promise<Written & { count: number }> {
    if (command.type === 'RecallMessage' && this.recallsAhead.isFull)
      throw unavailable('The live feed of this node is too far behind: send the same again.')
    const outcome = await this.#streams.execute(conversationId, command, requester)
    // From the answer on it holds, also before the feed brings it, and where another node wrote it.
    if (command.type === 'RecallMessage') this.#noteRecall(conversationId, command.seq, outcome.folded.position)
    if (outcome.kind !== 'appended') return { seq: outcome.folded.state.head, position: outcome.folded.position, unchanged: true, count: 0 }
    for (const event of outcome.events) this.#recentChanges.take(conversationId, event)
    const last = lastOf(outcome.events)
    return { seq: last.revision, position: last.position, unchanged: false, count: outcome.events.length }
  }

  /** Sends a message; a resend of any age gives its first result. @throws {Refusal} idempotency_conflict and the others */
  async send(
    conversationId: string,
    command: Extract<ConversationCommand, { type: 'SendMessage' }>,
    requester: Requester,
  ): Promise<SentMessage> {
    const outcome = await this.#streams.execute(conversationId, command, requester)
    if (outcome.kind === 'appended') return sentMessage(conversationId, lastOf(outcome.events))
    if (outcome.kind === 'unchanged') throw new Refusal('internal', 'A send is never unchanged.')
    const first = await this.#readEvent(conversationId, outcome.seq)
    if (!first) throw unavailable('The first result can not be read now: send the same again.')
    if (!isSameMessage(first.data as MessageSent, command)) {
      throw new Refusal(
        'idempotency_conflict',
        `This clientMessageId was used for another message, seq ${first.revision}: take a new id for new content.`,
      )
    }
    return { ...sentMessage(conversationId, first), duplicate: true }
  }

  /** Keeps a recall that is being acknowledged out of what is pushed and listed. `position`: of it, or of a later event. */
  #noteRecall(conversationId: string, messageSeq: number, position: Position): void {
    this.recallsAhead.add(conversationId, messageSeq, position)
    this.#recentChanges.takeRecall(conversationId, messageSeq, position)
  }

  /**
   * Moves a member's read cursor. `saidAs`: the `joinedSeq` of the membership in which it was said, where that was a while ago.
   * @throws {Refusal} invalid_request beyond the head, not_found where that membership has ended
   */
  async markRead(conversationId: string, seq: number, requester: Requester, saidAs?: number): Promise<ReadMark> {
    const userId = requester.actor.userId ?? ''
    const { state, position, joinedSeq } = await this.#openToMark(conversationId, userId, seq, saidAs)
    const sentSeq = sentSince(state, userId, joinedSeq)
    const ordinal = findRecentOrdinal(state, seq)
    const outcome = await this.#receipts.execute(conversationId, { type: 'MarkRead', userId, seq, joinedSeq, ordinal, sentSeq }, requester)
    const readSeq = Math.max(cursorOf(outcome.folded.state, userId, joinedSeq).readSeq ?? 0, sentSeq ?? 0)
    if (outcome.kind === 'appended') return { readSeq, head: state.head, position: lastOf(outcome.events).position, unchanged: false }
    // The cursor may have been moved by reading or by sending: who waits for the later of the two sees it.
    const { position: receiptsPosition } = outcome.folded
    return { readSeq, head: state.head, position: receiptsPosition > position ? receiptsPosition : position, unchanged: true }
  }

  /** Moves a member's delivered cursor; what is not ahead of it is ignored. @throws {Refusal} */
  async markDelivered(conversationId: string, seq: number, requester: Requester, saidAs?: number): Promise<void> {
    const userId = requester.actor.userId ?? ''
    const { joinedSeq } = await this.#openToMark(conversationId, userId, seq, saidAs)
    await this.#receipts.execute(conversationId, { type: 'MarkDelivered', userId, seq, joinedSeq }, requester)
  }

  async #openToMark(conversationId: string, userId: string, seq: number, saidAs: number | undefined): Promise<OpenedUpTo> {
    const opened = await this.openUpTo(conversationId, userId, seq)
    if (saidAs !== undefined && opened.joinedSeq !== saidAs) throw notFound()
    return opened
  }

  /** Opens a conversation up to `seq` for a member, who may move a cursor there. @throws {Refusal} invalid_request beyond the head */
  async openUpTo(conversationId: string, userId: string, seq: number): Promise<OpenedUpTo> {
    const opened = await this.reads.openUpTo(conversationId, { userId }, seq, (head) => invalidField('seq', `is beyond the head, ${head}`))
    return { ...opened, joinedSeq: memberOf(opened.state, userId).joinedSeq }
  }

  /** The feed that keeps this node current begins after `position`. */
  followFrom(position: Position): void {
    this.#recentChanges.startAt(position)
    this.recallsAhead.startAt(position)
  }

  /** Keeps what is in memory current with other nodes. */
  follow(conversationId: string, event: RecordedEvent): void {
    this.recallsAhead.follow(conversationId, event)
    this.#recentChanges.take(conversationId, event)
    this.#streams.follow(conversationId, event)
  }

  followReceipts(conversationId: string, event: RecordedEvent): void {
    this.#receipts.follow(conversationId, event)
  }

  async close(): Promise<void> {
    await Promise.all([this.#streams.close(), this.#receipts.close()])
  }

  // --- what a decision needs beyond the state ---

  #prepare(
    conversationId: string,
    command: ConversationCommand,
    { state }: Folded<ConversationState>,
    actor: { userId?: string },
  ): ConversationContext | Promise<ConversationContext> {
    const userId = actor.userId ?? ''
    const blocked = this.#isBlocked(state, command, userId)
    const lookUp = this.#lookUp(conversationId, command, state, userId)
    if (typeof blocked === 'boolean' && !(lookUp instanceof Promise)) return this.#contextOf(lookUp, blocked)
    return Promise.all([blocked, lookUp]).then(([isBlocked, found]) => this.#contextOf(found, isBlocked))
  }

  /** Completes what was found, in place: nobody else has it. */
  #contextOf(found: Found, blocked: boolean): ConversationContext {
    found.blocked = blocked
    found.membersMax = this.#membersMax
    return found as ConversationContext
  }

  #isBlocked(state: ConversationState, command: ConversationCommand, userId: string): boolean | Promise<boolean> {
    if (command.type === 'CreateConversation') {
      const [other] = command.conversationType === 'direct' ? command.memberIds : []
      return other !== undefined && !exists(state) && this.#users.isBlockBetween(userId, other)
    }
    if (state.type !== 'direct' || !state.members.has(userId)) return false
    const other = state.members.findOther(userId)
    return other !== undefined && this.#users.isBlockBetween(userId, other)
  }

  #lookUp(conversationId: string, command: ConversationCommand, state: ConversationState, userId: string): Found | Promise<Found> {
    // Strangers are refused by the decision; nothing is looked up for them.
    if (!state.members.has(userId)) return { strangerId: userId }
    switch (command.type) {
      case 'SendMessage':
        return this.#lookUpSend(conversationId, command, state, userId)
      case 'EditMessage':
      case 'RecallMessage':
      case 'AddReaction':
      case 'RemoveReaction':
      case 'PinMessage':
      case 'UnpinMessage':
        return this.#lookUpMessage(conversationId, command, state, userId)
      default:
        return {}
    }
  }

  #lookUpSend(
    conversationId: string,
    command: Extract<ConversationCommand, { type: 'SendMessage' }>,
    state: ConversationState,
    userId: string,
  ): Found | Promise<Found> {
    const earlier = this.#findEarlier(conversationId, command.clientMessageId, state, userId)
    if (command.replyToSeq === undefined) return earlier
    return Promise.all([earlier, this.#lookUpReplyTo(conversationId, command.replyToSeq)]).then(([found, replyTo]) => ({
      ...found,
      ...replyTo,
    }))
  }

  /** The same message sent before. What the window says holds only as long as the window reaches back to here: hence `asOf`. */
  #findEarlier(conversationId: string, clientMessageId: string, state: ConversationState, userId: string): Found | Promise<Found> {
    const recent = findRecentMessage(state, messageKey(userId, clientMessageId))
    if (recent !== undefined) return { sentBefore: recent }
    const start = windowStart(state)
    if (start < 0) return { asOf: state.head }
    return (
      this.#sentIds.find(conversationId, userId, clientMessageId, start) ??
      this.#findOlderMessage(conversationId, userId, clientMessageId, start)
    )
  }

  async #findOlderMessage(conversationId: string, userId: string, clientMessageId: string, start: number): Promise<Found> {
    let found = await this.#history.findSentMessage(conversationId, userId, clientMessageId)
    if (found.seq === undefined && found.asOf < start) {
      await this.#history.waitForRevision(conversationId, start)
      found = await this.#history.findSentMessage(conversationId, userId, clientMessageId)
    }
    // What was found stays true; what was not found is true as of then.
    return found.seq === undefined ? { asOf: found.asOf } : { sentBefore: found.seq }
  }

  async #lookUpMessage(conversationId: string, command: MessageCommand, state: ConversationState, userId: string): Promise<Found> {
    const { seq } = command
    if (seq > SEQ_MAX) return { message: undefined }
    const reaction = 'emoji' in command ? { userId, emoji: command.emoji } : undefined
    let found = await this.#history.findMessageFacts(conversationId, seq, reaction)
    if (found.asOf < windowStart(state)) {
      await this.#history.waitForRevision(conversationId, windowStart(state))
      found = await this.#history.findMessageFacts(conversationId, seq, reaction)
    }
    if (found.asOf >= seq) return found
    // The history has not seen this seq yet: the log has, and all changes to it are in the window.
    const event = await this.#readEvent(conversationId, seq)
    return event ? { asOf: seq, message: messageFactsOf(event) } : { missingSeq: seq }
  }

  /** Asked of the log, which knows more than a state that other nodes are ahead of. */
  async #lookUpReplyTo(conversationId: string, seq: number): Promise<Found> {
    if (seq > SEQ_MAX) return { replyToIsMessage: false }
    const event = await this.#readEvent(conversationId, seq)
    return event ? { replyToIsMessage: event.type === 'MessageSent' } : { missingSeq: seq }
  }

  /** Looks up the ordinal of a cursor that moves to where memory does not reach. */
  #prepareReceipt(conversationId: string, command: ReceiptsCommand, state: ReceiptsState): ReceiptsContext | Promise<ReceiptsContext> {
    if (command.type !== 'MarkRead' || command.ordinal !== undefined || isUnchanged(state, command)) return nothing
    return this.#findOrdinal(conversationId, command.seq)
  }

  /** The ordinal of the last message at or below `seq`, by the history once it has seen `seq`. @throws {Refusal} unavailable */
  async #findOrdinal(conversationId: string, seq: number): Promise<{ ordinal: number }> {
    let found = await this.#history.findOrdinal(conversationId, seq)
    if (found.asOf < seq) {
      await this.#history.waitForRevision(conversationId, seq)
      found = await this.#history.findOrdinal(conversationId, seq)
    }
    if (found.asOf < seq) throw unavailable('The read models are behind: send it again.')
    return found
  }

  async #readEvent(conversationId: string, seq: number): Promise<RecordedEvent | undefined> {
    const { events } = await this.#readStream(conversationStream(conversationId), { from: seq, limit: 1 })
    return events[0]
  }

  async #readStream(...asked: Parameters<EventStore['readStream']>): Promise<StreamPage> {
    try {
      return await this.#store.readStream(...asked)
    } catch (error) {
      if (error instanceof StoreUnavailable) throw unavailable('The log can not be read now: ask again.', error)
      throw error
    }
  }
}

/** Seq of the last message that a member has sent since it joined, null where none. */
function sentSince(state: ConversationState, userId: string, joinedSeq: number): number | null {
  const sentSeq = state.lastSent.get(userId)
  return sentSeq !== undefined && sentSeq > joinedSeq ? sentSeq : null
}

function lastOf(events: readonly RecordedEvent[]): RecordedEvent {
  const last = events.at(-1)
  if (!last) throw new Error('an append without events')
  return last
}

function sentMessage(conversationId: string, event: RecordedEvent): SentMessage {
  const { ordinal } = event.data as MessageSent
  return { conversationId, seq: event.revision, ordinal, position: event.position, sentAt: isoOf(event.metadata.at) }
}

function messageFactsOf(event: RecordedEvent): MessageFacts | undefined {
  if (event.type !== 'MessageSent') return undefined
  const { content } = event.data as MessageSent
  return {
    seq: event.revision,
    senderId: event.metadata.actor.userId ?? '',
    content,
    recalled: false,
    pinned: false,
    reactions: new Map(),
    reacted: false,
  }
}

/** Content and replyToSeq as canonical JSON, mentions as a set. */
function isSameMessage(first: MessageSent, again: { content: unknown; replyToSeq?: number; mentions?: readonly string[] }): boolean {
  const canonical = (message: { content: unknown; replyToSeq?: number; mentions?: readonly string[] }) =>
    canonicalJson([message.content, message.replyToSeq ?? null, [...new Set(message.mentions ?? [])].sort()])
  return canonical(first) === canonical(again)
}
