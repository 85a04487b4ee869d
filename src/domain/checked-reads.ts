import { type ClientEvent, blankRecalled, encodeEvent, messageShownBy, messageShownIn } from './client-event.js'
import { memberOf } from './conversation/decide.js'
import type { Member } from './conversation/members.js'
import { type ConversationState, exists, recentlyRecalled, windowStart } from './conversation/state.js'
import { Refusal, notFound, unavailable } from './errors.js'
import { type EventStore, type Position, type RecordedEvent, StoreUnavailable } from './event-store.js'
import type { History } from './history.js'
import { SEQ_MAX, conversationStream } from './ids.js'
import type { RecentChanges } from './recent-changes.js'
import type { Folded } from './write-path/streams.js'

/** Who reads: a user, or an app with the scope to audit. */
export type Reader = { userId: string } | { audit: true }

/** A conversation opened for somebody who may see it. */
export interface OpenConversation {
  state: ConversationState
  position: Position
  /** Null for an auditor. */
  member: Member | null
}

/** One read of one conversation. */
export interface Query<Found, Answer> {
  /** Asks the log or the tables. */
  find: (opened: OpenConversation) => Promise<Found>
  /** The last revision that what was found may show anything of. Where memory is behind it, memory catches up first. */
  reachesTo?: (found: Found) => number
  /** The revision up to which what was found knows all recalls. Default: it shows no content. */
  knowsRecallsTo?: (found: Found) => number
  /** Makes the answer, of nothing beyond the head of `opened`, with what is recalled there left out. */
  show: (found: Found, opened: OpenConversation) => Answer
}

/** Events of one conversation for a client. */
export interface EventsPage {
  /** Each as JSON text, in seq order. */
  items: string[]
  /** The seq of the last item, or the one that was asked after. */
  last: number
  head: number
  /** There are newer ones. */
  more: boolean
}

/** The folded states of conversations. */
export interface ConversationStates {
  peek(id: string): Folded<ConversationState> | undefined
  load(id: string): Folded<ConversationState> | Promise<Folded<ConversationState>>
  isLoading(id: string): boolean
  /** The state after a look at the end of the stream. */
  refresh(id: string): Promise<Folded<ConversationState>>
}

export interface CheckedReadsOptions {
  states: ConversationStates
  store: Pick<EventStore, 'readStream'>
  history: History
  recentChanges: RecentChanges
  /** Other nodes write to the same log. */
  isShared: boolean
}

/** In a conversation so busy that its window moves on each time, the reader is told to come back. */
const FINDS_MAX = 3

/**
 * The way by which everything is read of conversations. A read takes time, and meanwhile somebody may be removed or something
 * recalled. So what was found is shown only by the newest state that this node has once it has been found: that state says
 * who is a member, what is recalled and where the head is. Between that look and the answer nothing is waited for.
 *
 * Tables lag, and the state remembers recent recalls only. Where the tables have not seen the beginning of what the state
 * remembers, a recall could be known to neither: then the tables are waited for.
 */
export class CheckedReads {
  readonly #states: ConversationStates
  readonly #store: Pick<EventStore, 'readStream'>
  readonly #history: History
  readonly #recentChanges: RecentChanges
  readonly #isShared: boolean

  constructor({ states, store, history, recentChanges, isShared }: CheckedReadsOptions) {
    this.#states = states
    this.#store = store
    this.#history = history
    this.#recentChanges = recentChanges
    this.#isShared = isShared
  }

  /**
   * The one membership check of every read, live or not.
   * @throws {Refusal} not_found, the same for what does not exist and for what the reader is no member of
   */
  open(conversationId: string, reader: Reader): Promise<OpenConversation> {
    return this.decide(conversationId, (folded) => openFor(folded, reader))
  }

  /** Decides on the state in memory. On a shared log a refusal is told only after a look at the end of the stream. @throws {Refusal} */
  async decide<Decided>(conversationId: string, decideOn: (folded: Folded<ConversationState>) => Decided): Promise<Decided> {
    // One that is loaded only now is as new as the stream.
    const isOld = this.#states.peek(conversationId) !== undefined || this.#states.isLoading(conversationId)
    const folded = await this.#states.load(conversationId)
    try {
      return decideOn(folded)
    } catch (error) {
      if (!this.#isShared || !isOld || !(error instanceof Refusal)) throw error
      return decideOn(await this.#states.refresh(conversationId))
    }
  }

  /** Opens a conversation for a read or a cursor up to `seq`; what `beyond` makes is thrown where `seq` is beyond the head. @throws {Refusal} */
  openUpTo(conversationId: string, reader: Reader, seq: number, beyond: (head: number) => Refusal): Promise<OpenConversation> {
    return this.decide(conversationId, (folded) => {
      const opened = openFor(folded, reader)
      if (seq > folded.state.head) throw beyond(folded.state.head)
      return opened
    })
  }

  /** Reads, checks what was found by the newest state, and shows it. @throws {Refusal} */
  async read<Found, Answer>(
    conversationId: string,
    reader: Reader,
    { find, reachesTo, knowsRecallsTo, show }: Query<Found, Answer>,
  ): Promise<Answer> {
    let opened = await this.open(conversationId, reader)
    for (let finds = 1; ; finds += 1) {
      const found = await find(opened)
      if (reachesTo) await this.#catchUp(conversationId, reachesTo(found))
      opened = this.#openInMemory(conversationId, reader) ?? (await this.open(conversationId, reader))
      const start = windowStart(opened.state)
      if (!knowsRecallsTo || knowsRecallsTo(found) >= start) return show(found, opened)
      if (finds === FINDS_MAX) throw unavailable('What is recalled here can not be told now: ask again.')
      await this.#history.waitForRevision(conversationId, start)
    }
  }

  /** Events after `after` (-1: from the beginning). @throws {Refusal} */
  events(
    conversationId: string,
    reader: Reader,
    { after, limit, bytesMax }: { after: number; limit: number; bytesMax: number },
  ): Promise<EventsPage> {
    return this.read(conversationId, reader, {
      find: async ({ state }) => {
        const events = after >= state.head ? [] : await this.#readStream(conversationId, { from: after + 1, limit, bytesMax })
        return {
          events,
          recalls: await this.#findRecalls(
            conversationId,
            events.flatMap((event) => messageShownBy(event) ?? []),
            state,
          ),
        }
      },
      reachesTo: ({ events }) => events.at(-1)?.revision ?? -1,
      knowsRecallsTo: ({ recalls }) => recalls.asOf,
      show: ({ events, recalls }, { state }) => {
        const shown = events.filter(({ revision }) => revision <= state.head)
        const last = shown.at(-1)?.revision ?? after
        return { items: encodeEvents(shown, state, recalls.recalled), last, head: state.head, more: last < state.head }
      },
    })
  }

  /**
   * Events as a user's device may have them now, as JSON text: a member all of them, with what was recalled left out; a former
   * member only its own departures, and of no head beyond them.
   */
  async eventsFor(userId: string, conversationId: string, events: readonly RecordedEvent[]): Promise<ShownEvent[]> {
    const { state, recalled } = await this.#settleRecalls(
      conversationId,
      events.flatMap((event) => messageShownBy(event) ?? []),
    )
    if (!state.members.has(userId))
      return events
        .filter((event) => isDepartureOf(event, userId))
        .map((event) => ({ seq: event.revision, text: encodeEvent(event, event.revision) }))
    const texts = encodeEvents(events, state, recalled)
    return events.map(({ revision }, i) => ({ seq: revision, text: texts[i]! }))
  }

  /** The same for events that are JSON text already and were current a while ago. */
  async encodedFor(userId: string, conversationId: string, encoded: readonly string[]): Promise<string[]> {
    const events = encoded.map((text) => ({ text, event: JSON.parse(text) as ClientEvent }))
    const { state, recalled } = await this.#settleRecalls(
      conversationId,
      events.flatMap(({ event }) => messageShownIn(event) ?? []),
    )
    const isMember = state.members.has(userId)
    return events
      .filter(({ event }) => isMember || isDepartureOf(event, userId))
      .map(({ text, event }) => {
        if (!isMember) return JSON.stringify({ ...event, head: event.seq })
        return blankRecalled(text, recalled)
      })
  }

  /**
   * Reads rows of a user's conversations from tables at `position`: read again where those could miss a departure or a recall
   * that this node was not told of. What was found is shown with `hasLeft` and `isRecalled`, at once.
   * @throws {Refusal} unavailable where the tables do not get there in time
   */
  async readRows<Found extends { position: Position }, Answer>(
    find: () => Promise<Found>,
    show: (found: Found) => Answer,
  ): Promise<Answer> {
    for (let finds = 1; ; finds += 1) {
      const found = await find()
      if (found.position >= this.#recentChanges.since) return show(found)
      if (finds === FINDS_MAX) throw unavailable('The read models are behind what this node knows: ask again.')
      await this.#history.waitForPosition(this.#recentChanges.since)
    }
  }

  /** Whether a message was recalled, though tables may still show it. */
  isRecalled(conversationId: string, seq: number): boolean {
    const state = this.#states.peek(conversationId)?.state
    return this.#recentChanges.recalled(conversationId)?.has(seq) === true || (state !== undefined && recentlyRecalled(state).has(seq))
  }

  /** Whether somebody is no member any more, though tables may still show it. */
  hasLeft(conversationId: string, userId: string): boolean {
    const state = this.#states.peek(conversationId)?.state
    return state ? !state.members.has(userId) : this.#recentChanges.membership(conversationId, userId)?.isMember === false
  }

  /** Whether somebody is still the member that joined at `joinedSeq`, as far as memory tells. */
  isStillMember(conversationId: string, userId: string, joinedSeq: number): boolean {
    const state = this.#states.peek(conversationId)?.state
    if (state) return state.members.get(userId)?.joinedSeq === joinedSeq
    const known = this.#recentChanges.membership(conversationId, userId)
    return known === undefined || (known.isMember && known.revision === joinedSeq)
  }

  /** One event as the log has it, for checks alone: it is shown to nobody. @throws {Refusal} unavailable */
  async findEvent(conversationId: string, seq: number): Promise<RecordedEvent | undefined> {
    return seq > SEQ_MAX ? undefined : (await this.#readStream(conversationId, { from: seq, limit: 1 }))[0]
  }

  // --- helpers ---

  /** Of a single node memory is never behind what anybody was told. */
  async #catchUp(conversationId: string, revision: number): Promise<void> {
    const inMemory = this.#states.peek(conversationId)
    if (this.#isShared && inMemory && inMemory.revision < revision) await this.#states.refresh(conversationId)
  }

  /** Undefined where the state is not in memory, or refuses. */
  #openInMemory(conversationId: string, reader: Reader): OpenConversation | undefined {
    const folded = this.#states.peek(conversationId)
    if (!folded) return undefined
    try {
      return openFor(folded, reader)
    } catch (error) {
      if (error instanceof Refusal) return undefined
      throw error
    }
  }

  /** The newest state, and what is recalled of these messages by it. */
  async #settleRecalls(conversationId: string, seqs: readonly number[]): Promise<{ state: ConversationState; recalled: Set<number> }> {
    let { state } = await this.#states.load(conversationId)
    for (let finds = 1; ; finds += 1) {
      const { asOf, recalled } = await this.#findRecalls(conversationId, seqs, state)
      const folded = this.#states.peek(conversationId) ?? (await this.#states.load(conversationId))
      state = folded.state
      if (asOf >= windowStart(state)) return { state, recalled: new Set([...recalled, ...recentlyRecalled(state)]) }
      if (finds === FINDS_MAX) throw unavailable('What is recalled here can not be told now: ask again.')
    }
  }

  /** Which of these messages are recalled by the history; those that were sent within the window are recalled within it. */
  async #findRecalls(
    conversationId: string,
    seqs: readonly number[],
    state: ConversationState,
  ): Promise<{ asOf: number; recalled: ReadonlySet<number> }> {
    const start = windowStart(state)
    const before = seqs.filter((seq) => seq <= start)
    if (seqs.length === 0) return { asOf: Infinity, recalled: noRecalls }
    if (before.length === 0) return { asOf: start, recalled: noRecalls }
    let found = await this.#history.findRecalled(conversationId, before)
    if (found.asOf < start) {
      await this.#history.waitForRevision(conversationId, start)
      found = await this.#history.findRecalled(conversationId, before)
    }
    return { asOf: before.length === seqs.length ? found.asOf : Math.min(found.asOf, start), recalled: found.recalled }
  }

  async #readStream(conversationId: string, asked: Parameters<EventStore['readStream']>[1]): Promise<RecordedEvent[]> {
    try {
      return (await this.#store.readStream(conversationStream(conversationId), asked)).events
    } catch (error) {
      if (error instanceof StoreUnavailable) throw unavailable('The log can not be read now: ask again.', error)
      throw error
    }
  }
}

export interface ShownEvent {
  seq: number
  /** JSON. */
  text: string
}

const noRecalls: ReadonlySet<number> = new Set()

function openFor({ state, position }: Folded<ConversationState>, reader: Reader): OpenConversation {
  if ('userId' in reader) return { state, position, member: memberOf(state, reader.userId) }
  if (!exists(state)) throw notFound()
  return { state, position, member: null }
}

function encodeEvents(events: readonly RecordedEvent[], state: ConversationState, before: ReadonlySet<number>): string[] {
  const recently = recentlyRecalled(state)
  const isRecalled = (seq: number | undefined) => seq !== undefined && (recently.has(seq) || before.has(seq))
  return events.map((event) => encodeEvent(event, Math.max(state.head, event.revision), isRecalled(messageShownBy(event))))
}

const isDepartureOf = ({ type, data }: { type: string; data: unknown }, userId: string) =>
  (type === 'MemberLeft' || type === 'MemberRemoved') && (data as { userId: string }).userId === userId
