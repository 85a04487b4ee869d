import { blankRecalled } from '../domain/client-event.js'
import type { Position } from '../domain/event-store.js'
import { type RecallsAhead, type Recalled, union } from '../domain/recalls-ahead.js'
import type { Audience, Subjects } from './audience.js'
import type { Connection } from './connection.js'
import type { Attached, Delivery } from './delivery.js'
import { eventsFrame, headFrame } from './frames.js'

/** Above this many members and messages a second, and in all large conversations, facts are merged. */
const BUSY_MEMBERS = 100
const BUSY_MESSAGES_PER_SECOND = 20
export const MERGE_MS = 100
/** More than this does not wait to be merged. */
export const MERGE_CHARACTERS_MAX = 256 * 1024
/** A frame is cut here, so that a slow device is not handed everything in one piece. */
const FRAME_CHARACTERS_MAX = 128 * 1024

/** Facts of one conversation, in seq order without a gap. */
export interface Run {
  /** As JSON text. */
  events: readonly string[]
  firstSeq: number
  lastSeq: number
  /** Where a device may resume from once it has them. */
  resume: Position
  /** The last position before them. */
  floor: Position
  subjects: Subjects
  /** The messages that these facts recall. */
  recalls: Recalled | undefined
}

/**
 * Encodes once and hands the same bytes to every device. In large or busy conversations facts of up to 100 ms leave in one
 * frame, the first at once; in large ones a device that does not look gets a `head` in their place.
 */
export class Delivering {
  readonly #largeAbove: number
  readonly #recallsAhead: RecallsAhead
  /** Conversations with facts that wait: no device may resume from beyond the first of them. */
  readonly #merging = new Set<Audience>()

  constructor({ largeAbove, recallsAhead }: { largeAbove: number; recallsAhead: RecallsAhead }) {
    this.#largeAbove = largeAbove
    this.#recallsAhead = recallsAhead
  }

  isLarge(audience: Audience): boolean {
    return audience.memberCount > this.#largeAbove
  }

  /** Sends a run, or lets it wait to be merged with what follows. */
  send(audience: Audience, run: Run): void {
    if (audience.merge) {
      audience.merge.events.push(...run.events)
      audience.merge.characters += charactersOf(run.events)
      audience.merge.lastSeq = run.lastSeq
      if (run.recalls) this.noteRecalls(audience, run.recalls)
      audience.merge.subjects = { joined: audience.merge.subjects.joined, left: run.subjects.left }
      if (!this.#isMerged(audience) || audience.merge.characters > MERGE_CHARACTERS_MAX) this.flush(audience, run.resume)
      return
    }
    const now = performance.now()
    const waitMs = audience.lastFrameAt + MERGE_MS - now
    if (waitMs > 0 && this.#isMerged(audience) && charactersOf(run.events) <= MERGE_CHARACTERS_MAX) return this.#wait(audience, run, waitMs)
    audience.lastFrameAt = now
    this.#emit(audience, run)
  }

  #isMerged(audience: Audience): boolean {
    return this.isLarge(audience) || (audience.memberCount > BUSY_MEMBERS && audience.messagesPerSecond > BUSY_MESSAGES_PER_SECOND)
  }

  #wait(audience: Audience, run: Run, waitMs: number): void {
    const timer = setTimeout(() => this.flush(audience), waitMs)
    audience.merge = {
      events: [...run.events],
      characters: charactersOf(run.events),
      firstSeq: run.firstSeq,
      lastSeq: run.lastSeq,
      floor: run.floor,
      subjects: run.subjects,
      recalls: run.recalls,
      timer,
    }
    this.#merging.add(audience)
  }

  /** Blanks these messages among the events that wait. */
  noteRecalls({ merge }: Audience, recalls: Recalled): void {
    if (merge) merge.recalls = union(merge.recalls, recalls)
  }

  /** What waits leaves now: its time has come, or the audience is about to change. */
  flush(audience: Audience, resume: Position = audience.lastPosition): void {
    const { merge } = audience
    if (!merge) return
    this.forget(audience)
    audience.lastFrameAt = performance.now()
    // Blanks content recalled while it waited.
    const recalled = union(merge.recalls, this.#recallsAhead.of(audience.conversationId))
    const events = recalled ? merge.events.map((event) => blankRecalled(event, recalled)) : merge.events
    this.#emit(audience, { ...merge, events, resume })
  }

  /** Nobody is left to send it to. */
  forget(audience: Audience): void {
    clearTimeout(audience.merge?.timer)
    audience.merge = undefined
    this.#merging.delete(audience)
  }

  /** Where a device's live feed begins that comes now. */
  attachAt(position: Position, departures: number): Attached {
    const merging = new Map([...this.#merging].map(({ conversationId, merge }) => [conversationId, merge?.lastSeq ?? -1]))
    return { position, resume: this.#resumeOf(position), merging, departures }
  }

  stop(): void {
    for (const audience of this.#merging) this.forget(audience)
  }

  /** `head` at once for a device that has become active. */
  announceHead(connection: Connection, audience: Audience, position: Position): void {
    const seq = audience.merge ? audience.merge.firstSeq - 1 : audience.head
    this.announce(connection, audience.conversationId, seq, position)
  }

  /** `head` for what a device is not given. */
  announce(connection: Connection, conversationId: string, seq: number, position: Position): void {
    connection.deliver(headDelivery(conversationId, seq, this.#resumeOf(position)))
  }

  /** Never beyond what waits somewhere. */
  #resumeOf(position: Position): Position {
    let resume = position
    for (const { merge } of this.#merging) if (merge && merge.floor < resume) resume = merge.floor
    return resume
  }

  #emit(audience: Audience, run: Run): void {
    const resume = this.#resumeOf(run.resume)
    const deliveries = deliveriesOf(audience.conversationId, run, resume)
    const isLarge = this.isLarge(audience)
    let head: Delivery | undefined
    for (const { user } of audience.members.values()) {
      for (const connection of user.connections) {
        if (!isLarge || connection.activeConversationId === audience.conversationId)
          deliveries.forEach((delivery) => connection.deliver(delivery, isLarge))
        else if (run.subjects.joined === user.userId || run.subjects.left === user.userId)
          deliverOwn(connection, audience.conversationId, run, resume)
        else connection.deliver((head ??= { ...headDelivery(audience.conversationId, run.lastSeq, resume), recalls: run.recalls }), true)
      }
    }
  }
}

const charactersOf = (events: readonly string[]): number => events.reduce((sum, event) => sum + event.length, 0)

/** In frames of a bounded size; all but the last may only be resumed from before the run. */
function deliveriesOf(conversationId: string, run: Run, resume: Position): Delivery[] {
  const deliveries: Delivery[] = []
  for (const { from, to } of cuts(run.events)) {
    const upTo = to === run.events.length ? resume : run.floor < resume ? run.floor : resume
    deliveries.push(partOf(conversationId, run, { from, to }, upTo))
  }
  return deliveries
}

/** The events of a run from index `from` to before `to`. */
function partOf(conversationId: string, run: Run, { from, to }: { from: number; to: number }, resume: Position): Delivery {
  const events = run.events.length === to - from ? run.events : run.events.slice(from, to)
  return {
    frame: eventsFrame(events, resume),
    conversationId,
    firstSeq: run.firstSeq + from,
    lastSeq: run.firstSeq + to - 1,
    events,
    resume,
    left: to === run.events.length ? run.subjects.left : undefined,
    recalls: run.recalls,
  }
}

/** Where to cut, so that each piece has at most so many characters, and at least one fact. */
export const cuts = (events: readonly string[]) => cutsOf(events.map(({ length }) => length))

/** The same by the lengths alone. */
export function cutsOf(lengths: readonly number[], charactersMax = FRAME_CHARACTERS_MAX): { from: number; to: number }[] {
  const pieces: { from: number; to: number }[] = []
  let from = 0
  let characters = 0
  lengths.forEach((length, index) => {
    if (index > from && characters + length > charactersMax) {
      pieces.push({ from, to: index })
      from = index
      characters = 0
    }
    characters += length
  })
  pieces.push({ from, to: lengths.length })
  return pieces
}

const headDelivery = (conversationId: string, seq: number, resume: Position): Delivery => ({
  frame: headFrame(conversationId, seq, resume),
  conversationId,
  lastSeq: seq,
  events: [],
  resume,
})

/** One's own joining or leaving, as a fact also where one does not look; what lies around it is announced. */
function deliverOwn(connection: Connection, conversationId: string, run: Run, resume: Position): void {
  const last = run.events.length - 1
  const isJoining = run.subjects.joined === connection.userId
  const isLeaving = run.subjects.left === connection.userId && (last > 0 || !isJoining)
  const beforeLast = run.floor < resume ? run.floor : resume
  const fact = (index: number) =>
    connection.deliver(partOf(conversationId, run, { from: index, to: index + 1 }, index === last ? resume : beforeLast))
  if (isJoining) fact(0)
  const headAt = isLeaving ? last - 1 : last
  if (headAt >= (isJoining ? 1 : 0))
    connection.deliver(headDelivery(conversationId, run.firstSeq + headAt, headAt === last ? resume : beforeLast))
  if (isLeaving) fact(last)
}
