import { setTimeout as delay } from 'node:timers/promises'
import { encodeEvent, messageShownBy } from '../domain/client-event.js'
import type { ConversationState } from '../domain/conversation/state.js'
import { isOutage, unavailable } from '../domain/errors.js'
import type { EventStore, Position, RecordedEvent } from '../domain/event-store.js'
import { type ConversationEvent, type ReceiptEvent, type UserEvent, factOf } from '../domain/events.js'
import { CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX, idOfStream } from '../domain/ids.js'
import type { Logger } from '../domain/logger.js'
import { type RecallsAhead, union } from '../domain/recalls-ahead.js'
import { FeedProgress, withDeadline } from '../domain/waits.js'
import type { MembershipOfUser, ReadQueries } from '../projections/read-models.js'
import { Audience, type LocalMember, type LocalUser, type Subjects, UNKNOWN_ORDINAL, rememberLeft, settleOrdinal } from './audience.js'
import type { Connection } from './connection.js'
import { Delivering } from './deliver.js'
import { jsonFrame } from './frames.js'
import { Joins } from './joins.js'
import { LateLearning, joinedBy } from './late-learning.js'
import { UnreadPushes } from './unread-pushes.js'

/** Processed facts kept so that a user's rows from the tables can be brought up to the feed. */
const RECENT_EVENTS_MAX = 8_192
/** Their text; parsed they take about as much again. */
export const RECENT_CHARACTERS_MAX = 16 << 20
const LOAD_ATTEMPTS_MAX = 5
/** How long everybody's events wait for what has to be known of somebody who joins. */
const LEARN_MS_MAX = 250

export interface HubOptions {
  store: EventStore
  readModels: ReadQueries
  logger: Logger
  fanoutOnWriteMembersMax: number
  /** The folded state of a conversation. */
  loadState: (conversationId: string) => Promise<ConversationState>
  /** Whether a user has muted a conversation: that outlasts its leaving. */
  isMuted: (userId: string, conversationId: string) => Promise<boolean>
  /** Whether somebody, connected here or not, is still the member that joined at `joinedSeq`, as far as memory tells. */
  isStillMember: (conversationId: string, userId: string, joinedSeq: number) => boolean
  recallsAhead: RecallsAhead
}

/**
 * Follows the log and hands every fact to the local members of its conversation. A membership change is a fact of the
 * same stream, so the audience of a fact is the fold up to it. Everything here happens in the order of the log.
 */
export class Hub {
  readonly users = new Map<string, LocalUser>()
  readonly #audiences = new Map<string, Audience>()
  readonly #loading = new Map<string, Promise<LocalUser>>()
  readonly #store: EventStore
  readonly #readModels: ReadQueries
  readonly #logger: Logger
  readonly #delivering: Delivering
  readonly #unread: UnreadPushes
  readonly #receiptAudienceMax: number
  readonly #loadState: (conversationId: string) => Promise<ConversationState>
  readonly #isMuted: HubOptions['isMuted']
  readonly #isStillMember: HubOptions['isStillMember']
  readonly #recallsAhead: RecallsAhead
  readonly #learned = new Map<string, ConversationState>()
  /** By the event with which a local user joins. */
  readonly #learnedMutes = new Map<RecordedEvent, boolean>()
  readonly #lateLearning: LateLearning
  #recent: RecordedEvent[] = []
  #recentCharacters = 0
  /** Everything after this is in `#recent`. */
  #recentSince: Position = ''
  readonly #progress = new FeedProgress()
  readonly #stopping = new AbortController()
  #following: Promise<void> = Promise.resolve()
  /** A user said something of itself: presence and device revocation listen. */
  onUserEvent: (userId: string, event: UserEvent, at: number) => void = () => {}
  /** Every fact, for those who keep folded states current. */
  onEvents: (events: readonly RecordedEvent[]) => void = () => {}

  constructor({ store, readModels, logger, fanoutOnWriteMembersMax, loadState, isMuted, isStillMember, recallsAhead }: HubOptions) {
    this.#store = store
    this.#readModels = readModels
    this.#logger = logger
    this.#delivering = new Delivering({ largeAbove: fanoutOnWriteMembersMax, recallsAhead })
    this.#unread = new UnreadPushes({ largeAbove: fanoutOnWriteMembersMax })
    this.#receiptAudienceMax = fanoutOnWriteMembersMax
    this.#loadState = loadState
    this.#isMuted = isMuted
    this.#isStillMember = isStillMember
    this.#recallsAhead = recallsAhead
    this.#lateLearning = new LateLearning({
      isMuted,
      loadState,
      logger,
      signal: this.#stopping.signal,
      memberOf: (userId, conversationId) => this.users.get(userId)?.conversations.get(conversationId),
      mute: (member, muted) => this.#unread.mute(member, muted),
    })
  }

  /** Where the feed is: everything up to here has been handed on. */
  get position(): Position {
    return this.#progress.position
  }

  /** Begins to follow the log from its present end. @throws {StoreUnavailable} */
  async start(): Promise<void> {
    this.#progress.moveTo(await this.#store.head())
    this.#recentSince = this.position
    this.#following = this.#follow(this.#stopping.signal)
  }

  /** Who waits for the feed waits no longer. */
  endWaits(): void {
    this.#progress.end()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.endWaits()
    await this.#following
    this.#delivering.stop()
    this.#unread.stop()
  }

  // --- who is here ---

  /** The user with its conversations as of the feed's position; loaded once for all its connections. @throws {Refusal} unavailable */
  async enter(connection: Connection): Promise<LocalUser> {
    const { userId } = connection
    const known = this.users.get(userId)
    if (known) {
      known.connections.add(connection)
      this.attach(connection, known)
      return known
    }
    let loading = this.#loading.get(userId)
    if (!loading) {
      loading = this.#loadUser(userId).finally(() => this.#loading.delete(userId))
      this.#loading.set(userId, loading)
    }
    await loading
    // By now it is registered, or has left again with another connection: then it is loaded anew.
    return this.enter(connection)
  }

  /** From here on the live feed is the connection's. */
  attach(connection: Connection, { departures }: LocalUser): void {
    connection.attached = this.#delivering.attachAt(this.position, departures)
  }

  leave(connection: Connection): void {
    const user = this.users.get(connection.userId)
    if (!user?.connections.delete(connection) || user.connections.size > 0) return
    this.users.delete(user.userId)
    for (const member of user.conversations.values()) this.#dropFromAudience(member)
  }

  audienceOf(conversationId: string): Audience | undefined {
    return this.#audiences.get(conversationId)
  }

  /** Whether both are connected here and members of one conversation, as of the feed. */
  shareConversation(userId: string, otherId: string): boolean {
    const [one, other] = [this.users.get(userId)?.conversations, this.users.get(otherId)?.conversations]
    if (!one || !other) return false
    const [few, many] = one.size < other.size ? [one, other] : [other, one]
    for (const conversationId of few.keys()) if (many.has(conversationId)) return true
    return false
  }

  /** Tells a device that has just become active how far a large conversation is. */
  announceHead(connection: Connection, audience: Audience): void {
    this.#delivering.announceHead(connection, audience, this.position)
  }

  isLarge(audience: Audience): boolean {
    return this.#delivering.isLarge(audience)
  }

  /** Resolves when the feed has reached a position. @throws {Refusal} unavailable after a while, or when this stops */
  reached(position: Position, withinMs?: number): Promise<void> {
    return this.#progress.reached(position, withinMs)
  }

  #register(user: LocalUser): void {
    this.users.set(user.userId, user)
    for (const member of user.conversations.values()) member.audience.members.set(user.userId, member)
  }

  #dropFromAudience({ user, audience }: LocalMember): void {
    audience.members.delete(user.userId)
    if (audience.members.size > 0) return
    this.#delivering.forget(audience)
    this.#audiences.delete(audience.conversationId)
  }

  /**
   * Rows from the tables as of T, and what the feed has brought since T: in one turn, so that nothing falls between.
   * Where the tables are ahead of the feed, it waits for the feed; where they are too far behind, for them.
   */
  async #loadUser(userId: string): Promise<LocalUser> {
    for (let attempt = 0; attempt < LOAD_ATTEMPTS_MAX; attempt += 1) {
      const rows = await this.#readModels.memberships.ofUser(userId)
      await this.reached(rows.position)
      const since = rows.position < this.#recentSince ? undefined : this.#recentAfter(rows.position)
      if (since === undefined) {
        await this.#readModels.waitFor(this.position)
        continue
      }
      const joins = new Joins(userId, this.#loadState, this.#isMuted)
      const latest = await this.#learnJoins(joins, rows.position, since)
      if (!latest) continue
      const user = this.#userOf(userId, rows)
      for (const event of latest) {
        if (joins.has(event)) this.#foldJoin(user, event, joins, latest)
        else this.#bringUpToDate(user, event)
      }
      for (const member of user.conversations.values()) this.#unread.countQuietly(member)
      this.#register(user)
      return user
    }
    throw unavailable('The read models are too far behind: connect again in a moment.')
  }

  /**
   * Looks up what the user's joins since T need, until none is new: somebody who is added to groups all the time is let in, too.
   * Gives all that the feed has brought since T by then; undefined where it remembers no longer that far back.
   */
  async #learnJoins(joins: Joins, since: Position, events: RecordedEvent[]): Promise<RecordedEvent[] | undefined> {
    while (await joins.learn(events)) {
      if (since < this.#recentSince) return undefined
      events = this.#recentAfter(since)
    }
    return events
  }

  /** A join that the tables do not show yet makes the user a member as the feed would have. */
  #foldJoin(user: LocalUser, event: RecordedEvent, joins: Joins, since: readonly RecordedEvent[]): void {
    const conversationId = idOfStream(event.stream)
    const audience = this.#audienceFrom(joins.conversationOf(event, since))
    const { joinedOrdinal, isMuted } = joins.membershipOf(event)
    user.conversations.set(conversationId, {
      user,
      audience,
      joinedSeq: event.revision,
      joinedPosition: event.position,
      readOrdinal: joinedOrdinal,
      mentionOrdinals: [],
      muted: isMuted,
      pushedUnread: 0,
      pushedMentions: 0,
    })
    // Where others were here before, the audience has counted it.
    advance(audience, event)
  }

  #userOf(userId: string, rows: MembershipOfUser): LocalUser {
    const user: LocalUser = { userId, connections: new Set(), conversations: new Map(), left: new Map(), departures: 0, totalUnread: 0 }
    for (const row of rows.conversations) {
      const audience = this.#audienceFrom(row)
      const member: LocalMember = {
        user,
        audience,
        joinedSeq: row.joinedSeq,
        joinedPosition: row.joinedPosition,
        readOrdinal: row.readOrdinal,
        mentionOrdinals: row.mentionOrdinals,
        muted: row.muted,
        pushedUnread: 0,
        pushedMentions: 0,
      }
      user.conversations.set(row.conversationId, member)
    }
    return user
  }

  #audienceFrom(known: ConstructorParameters<typeof Audience>[0]): Audience {
    let audience = this.#audiences.get(known.conversationId)
    if (!audience) {
      audience = new Audience(known)
      this.#audiences.set(known.conversationId, audience)
    }
    return audience
  }

  /** What the feed has brought after a position. */
  #recentAfter(position: Position): RecordedEvent[] {
    let from = this.#recent.length
    while (from > 0 && (this.#recent[from - 1]?.position ?? '') > position) from -= 1
    return this.#recent.slice(from)
  }

  /** Folds a fact that the feed has passed already into a user that was not here then. */
  #bringUpToDate(user: LocalUser, event: RecordedEvent): void {
    if (!event.stream.startsWith(CONVERSATION_PREFIX)) return this.#foldCursorOrMarks(event, user)
    const fact = factOf<ConversationEvent>(event)
    const conversationId = idOfStream(event.stream)
    const member = user.conversations.get(conversationId)
    if (!member) return
    // The audience may be new here and learns from the same facts; where others were here before, it knows them.
    advance(member.audience, event)
    if (fact.type === 'MessageSent') countMessage(member, fact.data.ordinal, fact.data.mentions, fact.metadata.actor.userId)
    else if ((fact.type === 'MemberLeft' || fact.type === 'MemberRemoved') && fact.data.userId === user.userId)
      this.#removeMember(user, conversationId)
  }

  // --- the feed ---

  async #follow(signal: AbortSignal): Promise<void> {
    const filter = { prefixes: [CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX] }
    while (!signal.aborted) {
      try {
        for await (const item of this.#store.subscribeToAll(this.position, filter, signal)) {
          if (item.kind !== 'events') this.#moveTo(item.position)
          else {
            await this.#learn(item.events)
            this.#take(item.events)
          }
        }
      } catch (error) {
        if (!isOutage(error)) this.#logger.error({ err: error }, 'the live feed broke; it goes on from its last position')
        await delay(200 + Math.random() * 300, undefined, { signal }).catch(() => {})
      }
    }
  }

  /**
   * Where a local user joins, it may have muted the conversation before; of one that nobody here was in, its state says how large it is
   * and where unread starts. All the others wait for that for a moment only; then it is found out behind.
   */
  async #learn(events: readonly RecordedEvent[]): Promise<void> {
    this.#learned.clear()
    this.#learnedMutes.clear()
    for (let giveUpAt = Infinity; ; ) {
      const joins = events.filter((event) => event.type === 'MemberJoined' && this.#localJoins(event).length > 0)
      const unknown = joins.filter((event) => !this.#learnedMutes.has(event) || !this.#isKnown(idOfStream(event.stream)))
      if (unknown.length === 0) return
      const now = performance.now()
      giveUpAt = Math.min(giveUpAt, now + LEARN_MS_MAX)
      const learning = Promise.all(unknown.map((event) => this.#learnOf(event)))
      const learned = await withDeadline(learning, giveUpAt - now, () => new Error('late')).catch(() => undefined)
      if (!learned) return this.#lateLearning.add(unknown)
      for (const { event, muted, state } of learned) {
        this.#learnedMutes.set(event, muted)
        if (state) this.#learned.set(idOfStream(event.stream), state)
      }
    }
  }

  async #learnOf(event: RecordedEvent): Promise<{ event: RecordedEvent; muted: boolean; state: ConversationState | undefined }> {
    const conversationId = idOfStream(event.stream)
    const muted = await this.#isMuted(joinedBy(event), conversationId)
    return { event, muted, state: this.#isKnown(conversationId) ? undefined : await this.#loadState(conversationId) }
  }

  #isKnown(conversationId: string): boolean {
    return this.#audiences.has(conversationId) || this.#learned.has(conversationId)
  }

  #take(events: readonly RecordedEvent[]): void {
    const last = events.at(-1)
    if (!last) return
    this.onEvents(events)
    this.#deliverAll(events)
    this.#remember(events)
    this.#moveTo(last.position)
  }

  #moveTo(position: Position): void {
    if (position > this.position) this.#progress.moveTo(position)
  }

  #remember(events: readonly RecordedEvent[]): void {
    for (const event of events) {
      this.#recent.push(event)
      this.#recentCharacters += event.dataJson.length
    }
    // Forgotten some at a time, so that most of what comes is garbage before the collector has moved it to where the old things are.
    if (this.#recent.length < RECENT_EVENTS_MAX * 1.25 && this.#recentCharacters < RECENT_CHARACTERS_MAX * 1.25) return
    let dropped = 0
    while (this.#recent.length - dropped > RECENT_EVENTS_MAX || this.#recentCharacters > RECENT_CHARACTERS_MAX)
      this.#recentCharacters -= this.#recent[dropped++]!.dataJson.length
    this.#recentSince = this.#recent[dropped - 1]?.position ?? this.#recentSince
    this.#recent = this.#recent.slice(dropped)
  }

  /**
   * Facts of one conversation that came together leave in one frame. A membership change of somebody who is here
   * splits the run, so that each frame goes to just those who were members at all of its facts.
   */
  #deliverAll(events: readonly RecordedEvent[]): void {
    const runs = new Map<string, RecordedEvent[]>()
    const recalls = recallsIn(events)
    if (recalls) this.#blankMerging(recalls)
    for (const event of events) {
      if (!event.stream.startsWith(CONVERSATION_PREFIX)) {
        this.#takeOther(event)
        continue
      }
      const conversationId = idOfStream(event.stream)
      const audience = this.#audiences.get(conversationId)
      const joins = this.#localJoins(event)
      if (!audience && joins.length === 0) continue
      const run = runs.get(conversationId)
      if (joins.length > 0) {
        // Those who were here before get what came before; the new ones begin with this fact.
        this.#endRun(runs, conversationId, recalls)
        for (const user of joins) {
          this.#addMember(user, event, conversationId)
          this.#announceMissed(user, conversationId, event.revision - 1)
        }
        runs.set(conversationId, [event])
      } else if (run) run.push(event)
      else runs.set(conversationId, [event])
      this.#foldLive(conversationId, event)
      const leaver = this.#findLocalLeaver(event, conversationId)
      if (leaver) {
        this.#unread.leave(leaver)
        this.#endRun(runs, conversationId, recalls)
        this.#removeLeaver(event, conversationId)
      }
    }
    this.#endAllRuns(runs, events, recalls)
  }

  /** Blanks messages that wait to be merged: they may leave before the event that recalls them is delivered. */
  #blankMerging(recalls: Recalls): void {
    for (const [conversationId, seqs] of recalls) {
      const audience = this.#audiences.get(conversationId)
      if (audience) this.#delivering.noteRecalls(audience, seqs)
    }
  }

  /** Sends one run early: the others of the batch are behind it, so a device may resume only from before the batch. */
  #endRun(runs: Map<string, RecordedEvent[]>, conversationId: string, recalls: Recalls | undefined): void {
    const run = runs.get(conversationId)
    runs.delete(conversationId)
    if (run) this.#sendRun(conversationId, run, this.position, recalls)
    const audience = this.#audiences.get(conversationId)
    if (audience) this.#delivering.flush(audience, this.position)
  }

  /** In the order of their first facts; each may be resumed from up to where the next one begins. */
  #endAllRuns(runs: Map<string, RecordedEvent[]>, events: readonly RecordedEvent[], recalls: Recalls | undefined): void {
    const ordered = [...runs]
    const last = events.at(-1)?.position ?? this.position
    if (ordered.length === 1 && ordered[0]) return this.#sendRun(ordered[0][0], ordered[0][1], last, recalls)
    let at = 0
    for (const [index, [conversationId, run]] of ordered.entries()) {
      const next = ordered[index + 1]?.[1][0]
      if (next) while (events[at] !== next) at += 1
      const resume = next ? (events[at - 1]?.position ?? this.position) : last
      this.#sendRun(conversationId, run, resume, recalls)
    }
  }

  #sendRun(conversationId: string, run: readonly RecordedEvent[], resume: Position, recalls: Recalls | undefined): void {
    const audience = this.#audiences.get(conversationId)
    const first = run[0]
    if (!audience || !first) return
    const brought = recalls?.get(conversationId)
    const recalled = union(brought, this.#recallsAhead.of(conversationId))
    const encoded = run.map((event) => encodeEvent(event, audience.head, recalled?.has(messageShownBy(event) ?? -1)))
    this.#delivering.send(audience, {
      events: encoded,
      firstSeq: first.revision,
      lastSeq: first.revision + run.length - 1,
      resume,
      floor: this.position,
      subjects: subjectsOf(run),
      recalls: brought,
    })
    this.#unread.changed(audience)
  }

  #foldLive(conversationId: string, event: RecordedEvent): void {
    const audience = this.#audiences.get(conversationId)
    if (!audience) return
    advance(audience, event)
    if (event.type !== 'MessageSent') return
    const { data, metadata } = factOf<Extract<ConversationEvent, { type: 'MessageSent' }>>(event)
    audience.countMessages(1, metadata.at)
    const sender = audience.members.get(metadata.actor.userId ?? '')
    if (sender) countMessage(sender, data.ordinal, undefined, sender.user.userId)
    for (const userId of data.mentions ?? []) {
      const mentioned = audience.members.get(userId)
      if (mentioned) countMessage(mentioned, data.ordinal, data.mentions, metadata.actor.userId)
    }
  }

  // --- members ---

  /** Local users that this fact makes members. */
  #localJoins(event: RecordedEvent): LocalUser[] {
    if (event.type !== 'ConversationCreated' && event.type !== 'MemberJoined') return []
    const fact = factOf<ConversationEvent>(event)
    const joined = fact.type === 'ConversationCreated' ? fact.data.members : fact.type === 'MemberJoined' ? [fact.data] : []
    return joined.flatMap(({ userId }) => this.users.get(userId) ?? [])
  }

  #addMember(user: LocalUser, event: RecordedEvent, conversationId: string): void {
    const audience = this.#audiences.get(conversationId) ?? this.#audienceFrom(this.#knownOf(event, conversationId))
    const member: LocalMember = {
      user,
      audience,
      joinedSeq: event.revision,
      joinedPosition: event.position,
      readOrdinal: audience.lastOrdinal,
      mentionOrdinals: [],
      muted: this.#learnedMutes.get(event) ?? false,
      pushedUnread: 0,
      pushedMentions: 0,
    }
    user.conversations.set(conversationId, member)
    if (this.users.get(user.userId) === user) audience.members.set(user.userId, member)
  }

  /** What is known of a conversation whose first local member joins by this very fact. */
  #knownOf(event: RecordedEvent, conversationId: string): ConstructorParameters<typeof Audience>[0] {
    const known = { conversationId, head: event.revision, lastPosition: event.position }
    const fact = factOf<ConversationEvent>(event)
    if (fact.type === 'ConversationCreated')
      return { ...known, type: fact.data.type, lastOrdinal: 0, memberCount: fact.data.members.length }
    const state = this.#learned.get(conversationId)
    if (!state) return { ...known, type: 'group', lastOrdinal: UNKNOWN_ORDINAL, memberCount: 1 }
    const lastOrdinal = (fact.type === 'MemberJoined' && state.members.get(fact.data.userId)?.joinedOrdinal) || 0
    return { ...known, type: 'group', lastOrdinal, memberCount: state.members.size }
  }

  #findLocalLeaver(event: RecordedEvent, conversationId: string): LocalMember | undefined {
    if (event.type !== 'MemberLeft' && event.type !== 'MemberRemoved') return undefined
    return this.#audiences.get(conversationId)?.members.get((event.data as { userId: string }).userId)
  }

  #removeLeaver(event: RecordedEvent, conversationId: string): void {
    const user = this.users.get((event.data as { userId: string }).userId)
    if (!user) return
    this.#removeMember(user, conversationId)
    rememberLeft(user, conversationId, event.revision)
  }

  /** Who comes back is told how far it went meanwhile, so that its devices see no hole in what they hold. */
  #announceMissed(user: LocalUser, conversationId: string, seq: number): void {
    const leftSeq = user.left.get(conversationId)
    user.left.delete(conversationId)
    if (leftSeq === undefined || leftSeq === seq) return
    for (const connection of user.connections) this.#delivering.announce(connection, conversationId, seq, this.position)
  }

  #removeMember(user: LocalUser, conversationId: string): void {
    const member = user.conversations.get(conversationId)
    if (!member) return
    user.conversations.delete(conversationId)
    user.departures += 1
    if (!member.muted) user.totalUnread -= member.pushedUnread
    this.#dropFromAudience(member)
  }

  // --- cursors and marks ---

  #takeOther(event: RecordedEvent): void {
    if (event.stream.startsWith(RECEIPTS_PREFIX)) return this.#takeReceipt(event)
    const fact = factOf<UserEvent>(event)
    const userId = idOfStream(event.stream)
    const user = this.users.get(userId)
    if (user) this.#foldCursorOrMarks(event, user)
    this.onUserEvent(userId, fact, fact.metadata.at)
  }

  #takeReceipt(event: RecordedEvent): void {
    const audience = this.#audiences.get(idOfStream(event.stream))
    if (!audience) return
    const { type, data } = factOf<ReceiptEvent>(event)
    // A cursor may be written after its membership has ended: it counts for nothing, and nobody is told.
    if (!this.#isStillMember(audience.conversationId, data.userId, data.joinedSeq ?? 0)) return
    const user = this.users.get(data.userId)
    if (user) this.#foldCursorOrMarks(event, user)
    if (audience.memberCount > this.#receiptAudienceMax) return
    const moved = type === 'ReadUpTo' ? { readSeq: data.seq } : { deliveredSeq: data.seq }
    const frame = jsonFrame({ type: 'receipt', conversationId: audience.conversationId, userId: data.userId, ...moved })
    for (const member of audience.members.values()) for (const connection of member.user.connections) connection.push(frame)
  }

  #foldCursorOrMarks(event: RecordedEvent, user: LocalUser): void {
    const fact = factOf<ReceiptEvent | UserEvent>(event)
    if (fact.type === 'ReadUpTo' && fact.data.userId === user.userId) {
      const member = user.conversations.get(idOfStream(event.stream))
      if (!member || member.joinedSeq !== (fact.data.joinedSeq ?? 0) || fact.data.ordinal <= member.readOrdinal) return
      read(member, fact.data.ordinal)
      this.#unread.changed(member.audience)
    } else if (fact.type === 'InboxMarked' && fact.data.muted !== undefined && idOfStream(event.stream) === user.userId) {
      const member = user.conversations.get(fact.data.conversationId)
      if (member) this.#unread.mute(member, fact.data.muted)
    }
  }
}

function subjectsOf(run: readonly RecordedEvent[]): Subjects {
  const [first, last] = [run[0], run.at(-1)]
  const left = last?.type === 'MemberLeft' || last?.type === 'MemberRemoved' ? (last.data as { userId: string }).userId : undefined
  return { joined: first?.type === 'MemberJoined' ? (first.data as { userId: string }).userId : undefined, left }
}

/** By conversation, the messages that events recall. */
type Recalls = ReadonlyMap<string, ReadonlySet<number>>

/** Undefined where nothing is recalled, which is nearly always. */
function recallsIn(events: readonly RecordedEvent[]): Recalls | undefined {
  let recalls: Map<string, Set<number>> | undefined
  for (const event of events) {
    if (event.type !== 'MessageRecalled') continue
    const { messageSeq } = event.data as { messageSeq: number }
    const conversationId = idOfStream(event.stream)
    recalls ??= new Map()
    const known = recalls.get(conversationId)
    if (known) known.add(messageSeq)
    else recalls.set(conversationId, new Set([messageSeq]))
  }
  return recalls
}

/** The audience's knowledge moves with each fact, once. */
function advance(audience: Audience, event: RecordedEvent): void {
  if (event.position <= audience.lastPosition) return
  audience.head = event.revision
  audience.lastPosition = event.position
  const fact = factOf<ConversationEvent>(event)
  if (fact.type === 'MessageSent') {
    if (audience.lastOrdinal === UNKNOWN_ORDINAL) settleOrdinal(audience, fact.data.ordinal - 1)
    audience.lastOrdinal = fact.data.ordinal
  }
  if (fact.type === 'MemberJoined') audience.memberCount += 1
  else if (fact.type === 'MemberLeft' || fact.type === 'MemberRemoved') audience.memberCount -= 1
}

/** A send reads up to itself; a mention waits until it is read. */
function countMessage(member: LocalMember, ordinal: number, mentions: readonly string[] | undefined, senderId: string | undefined): void {
  const { userId } = member.user
  if (senderId === userId) read(member, ordinal)
  else if (mentions?.includes(userId)) member.mentionOrdinals.push(ordinal)
}

function read(member: LocalMember, ordinal: number): void {
  member.readOrdinal = Math.max(member.readOrdinal, ordinal)
  if (member.mentionOrdinals.length > 0) member.mentionOrdinals = member.mentionOrdinals.filter((mention) => mention > member.readOrdinal)
}
