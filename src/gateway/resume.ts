import type { Conversations } from '../domain/conversations.js'
import { unavailable } from '../domain/errors.js'
import type { EventStore, Position, RecordedEvent } from '../domain/event-store.js'
import { conversationStream } from '../domain/ids.js'
import type { Departure } from '../projections/memberships.js'
import type { ReadQueries } from '../projections/read-models.js'
import { type LocalMember, type LocalUser, rememberLeft } from './audience.js'
import type { Connection } from './connection.js'
import type { Attached } from './delivery.js'
import { cutsOf } from './deliver.js'
import { eventsFrame, jsonFrame } from './frames.js'
import type { Hub } from './hub.js'
import { Turnstile } from './turnstile.js'

/** More than this is not resumed: the client reads the inbox and what it needs. */
export const MISSED_EVENTS_MAX = 10_000
const PAGE_EVENTS = 500
const PAGE_BYTES_MAX = 256 << 10
/** Pages that all resumes of this node read and encode beside each other; a device that does not read holds none of them up. */
export const RESUME_PAGES_AT_ONCE = 16
/** The first look back; most devices were away for a moment. */
const FIRST_LOOK_EVENTS = 64
const FIRST_LOOK_BYTES_MAX = 64 << 10
const TAILS_AT_ONCE = 4
/** Of what a resume has read to find where it begins, so much is sent from memory; the rest is read again, page by page. */
export const RESUME_KEPT_CHARACTERS_MAX = 256 << 10
/** Members whose cursors are asked for in one statement. */
const RECEIPTS_AT_ONCE = 2_000
const FINDS_MAX = 5
/** What an event as JSON has beside its data, about. */
const EVENT_OVERHEAD_CHARACTERS = 350

/** What a device missed of one conversation: events from `from` on, up to the place where its live feed begins. */
interface Tail {
  conversationId: string
  from: number
  count: number
  /** Where all of them were read already to find the beginning, and are few. */
  events: RecordedEvent[] | undefined
}

export interface Missed {
  tails: Tail[]
}

export interface ResumeOptions {
  store: EventStore
  conversations: Conversations
  readModels: ReadQueries
  hub: Hub
  fanoutOnWriteMembersMax: number
}

/**
 * Brings a device from the position it held to where its live feed began. The live feed is attached and held back before
 * this runs; facts up to the attach point come from the log, those after it from the feed: the seam needs no lock.
 */
export class Resume {
  readonly #options: ResumeOptions
  readonly #pages = new Turnstile(RESUME_PAGES_AT_ONCE)

  constructor(options: ResumeOptions) {
    this.#options = options
  }

  /** Whether the position is one of this log. The feed is waited for where another node is ahead. @throws {StoreUnavailable} */
  async isOfThisLog(position: Position): Promise<boolean> {
    const { store, hub } = this.#options
    if (!(await store.confirms(position))) return false
    await hub.reached(position)
    return true
  }

  /**
   * Finds what was missed between the position and where the connection is attached; undefined when it is more than is resumed.
   * Where the user leaves a conversation meanwhile, the connection is attached anew: of what the feed has brought since then
   * the user may have only its departure, and a resume that begins after it gives just that.
   * @throws {Refusal} unavailable
   */
  async find(connection: Connection, user: LocalUser, position: Position): Promise<Missed | undefined> {
    for (let finds = 1; finds <= FINDS_MAX; finds += 1) {
      const missed = await this.#findOnce(user, position, connection.attached)
      if (user.departures === connection.attached.departures) return missed
      connection.holdAnew()
      this.#options.hub.attach(connection, user)
    }
    throw unavailable('The conversations of this user change too fast: connect again in a moment.')
  }

  async #findOnce(user: LocalUser, position: Position, attached: Attached): Promise<Missed | undefined> {
    const departures = await this.#findDepartures(user, position, attached)
    if (!departures) return undefined
    const moved = [...user.conversations.values()].filter(({ audience }) => audience.lastPosition > position)
    const tails: Tail[] = departures.map(({ conversationId, seq }) => ({ conversationId, from: seq, count: 1, events: undefined }))
    let count = tails.length
    let kept = 0
    for (let at = 0; at < moved.length; at += TAILS_AT_ONCE) {
      const found = await Promise.all(
        moved.slice(at, at + TAILS_AT_ONCE).map((member) => this.#findTail(member, position, attached, MISSED_EVENTS_MAX - count)),
      )
      for (const tail of found) {
        if (!tail) return undefined
        count += tail.count
        kept += charactersOf(tail)
        if (kept > RESUME_KEPT_CHARACTERS_MAX) {
          kept -= charactersOf(tail)
          tail.events = undefined
        }
        if (tail.count > 0) tails.push(tail)
      }
      if (count > MISSED_EVENTS_MAX) return undefined
    }
    return { tails }
  }

  /** The last departure of each conversation in (position, attached], also where the user has come back since; undefined: too many. */
  async #findDepartures(user: LocalUser, position: Position, attached: Attached): Promise<Departure[] | undefined> {
    const { readModels, hub } = this.#options
    await readModels.waitFor(attached.position)
    const departures = await readModels.memberships.departuresAfter(user.userId, position, MISSED_EVENTS_MAX + 1)
    if (departures.length > MISSED_EVENTS_MAX) return undefined
    // A table that is ahead of the feed knows the last one alone: it may hide one that was before the attach point. When the feed has
    // brought it, the connection is attached anew.
    const wasMember = (conversationId: string) => (user.conversations.get(conversationId)?.joinedPosition ?? attached.position) <= position
    const ahead = departures.findLast((one) => one.position > attached.position && !wasMember(one.conversationId))
    if (ahead) await hub.reached(ahead.position)
    const missed = departures.filter((one) => one.position <= attached.position)
    for (const { conversationId, seq } of missed) if (!user.conversations.has(conversationId)) rememberLeft(user, conversationId, seq)
    return missed
  }

  /** Sends what was found, then the receipts that moved. The device reads at its own pace. */
  async send(connection: Connection, user: LocalUser, missed: Missed, position: Position, attached: Attached): Promise<void> {
    for (const [index, tail] of missed.tails.entries()) {
      // Until all has been sent, a device that breaks off must begin again from where it was.
      await this.#sendTail(connection, tail, position, index === missed.tails.length - 1 ? attached.position : position)
      tail.events = undefined
      if (!connection.isOpen) return
    }
    await this.#sendReceipts(connection, user, position)
  }

  /** The events in (position, attached]: a look back from the end tells of a few; of more only their number is found out. */
  async #findTail(
    { audience, joinedPosition, joinedSeq }: LocalMember,
    position: Position,
    attached: Attached,
    countMax: number,
  ): Promise<Tail | undefined> {
    const { conversationId } = audience
    const stream = conversationStream(conversationId)
    const asked = { direction: 'backwards', limit: FIRST_LOOK_EVENTS, bytesMax: FIRST_LOOK_BYTES_MAX } as const
    const { events: page, isEnd } = await this.#options.store.readStream(stream, asked)
    const lowest = joinedPosition > position ? joinedSeq : 0
    const isMissed = (event: RecordedEvent) => event.position > position && event.revision >= lowest
    const events = page.filter((event) => isMissed(event) && event.position <= attached.position).reverse()
    const oldest = page.at(-1)
    if (oldest === undefined || isEnd || !isMissed(oldest))
      return events.length > countMax ? undefined : { conversationId, from: events[0]?.revision ?? 0, count: events.length, events }
    const end = events.at(-1)?.revision ?? (await this.#firstAfter(stream, lowest, oldest.revision, attached.position)) - 1
    // Nothing where all of it came after the attach point.
    const from = await this.#firstAfter(stream, Math.max(lowest, end - countMax), Math.min(oldest.revision, end + 1), position)
    const count = Math.max(0, end - from + 1)
    return count > countMax ? undefined : { conversationId, from, count, events: undefined }
  }

  /**
   * The first revision in [lowest, known] whose event lies after `position`, where that of `known` does; `lowest` where all do.
   * Positions rise with revisions: growing steps back and then halves need a dozen single events, however many were missed.
   */
  async #firstAfter(stream: string, lowest: number, known: number, position: Position): Promise<number> {
    let after = known
    let upTo = lowest - 1
    for (let step = FIRST_LOOK_EVENTS; after - 1 > upTo; step *= 4) {
      const look = upTo < lowest ? Math.max(lowest, after - step) : (after + upTo) >> 1
      const [event] = (await this.#options.store.readStream(stream, { from: look, limit: 1 })).events
      if (event === undefined || event.position > position) after = look
      else upTo = look
    }
    return after
  }

  async #sendTail(connection: Connection, tail: Tail, resume: Position, lastResume: Position): Promise<void> {
    const { conversations } = this.#options
    const end = tail.from + tail.count
    for (let from = tail.from; from < end; ) {
      const events = await this.#pages.pass(() => this.#readPage(tail, from, end))
      for (const { from: first, to } of cutsOf(events.map(({ dataJson }) => dataJson.length + EVENT_OVERHEAD_CHARACTERS))) {
        const isLast = from + to >= end
        // Looked at again for each piece: the device may have read the one before slowly.
        const shown = await conversations.reads.eventsFor(connection.userId, tail.conversationId, events.slice(first, to))
        // The membership has ended meanwhile, and the feed's next events would follow a hole: the next resume gives its end alone.
        if (shown.length < to - first) throw unavailable('A membership has ended meanwhile: connect again.')
        const upTo = isLast ? lastResume : resume
        const texts = shown.map(({ text }) => text)
        connection.sendPastHold({
          frame: eventsFrame(texts, upTo),
          conversationId: tail.conversationId,
          firstSeq: shown[0]!.seq,
          lastSeq: shown.at(-1)!.seq,
          events: texts,
          resume: upTo,
        })
        await connection.drained()
        if (!connection.isOpen) return
      }
      from += events.length
    }
  }

  /** From `from` on as much as one page has. */
  async #readPage(tail: Tail, from: number, end: number): Promise<readonly RecordedEvent[]> {
    const asked = { from, limit: Math.min(PAGE_EVENTS, end - from), bytesMax: PAGE_BYTES_MAX }
    return tail.events ?? (await this.#options.store.readStream(conversationStream(tail.conversationId), asked)).events
  }

  /** A few conversations at a time: each has at most as many cursors as members. */
  async #sendReceipts(connection: Connection, user: LocalUser, position: Position): Promise<void> {
    let ids: string[] = []
    let members = 0
    for (const { audience } of user.conversations.values()) {
      if (audience.memberCount > this.#options.fanoutOnWriteMembersMax) continue
      ids.push(audience.conversationId)
      members += audience.memberCount
      if (members < RECEIPTS_AT_ONCE) continue
      await this.#sendReceiptsOf(connection, ids, position)
      if (!connection.isOpen) return
      ids = []
      members = 0
    }
    await this.#sendReceiptsOf(connection, ids, position)
  }

  async #sendReceiptsOf(connection: Connection, ids: readonly string[], position: Position): Promise<void> {
    if (ids.length === 0) return
    const { reads } = this.#options.conversations
    for (const { conversationId, userId, readSeq, deliveredSeq } of await this.#options.readModels.receipts.after(ids, position)) {
      if (reads.hasLeft(conversationId, connection.userId) || reads.hasLeft(conversationId, userId)) continue
      const moved = { ...(readSeq === null ? {} : { readSeq }), ...(deliveredSeq === null ? {} : { deliveredSeq }) }
      connection.send(jsonFrame({ type: 'receipt', conversationId, userId, ...moved }))
      await connection.drained()
      if (!connection.isOpen) return
    }
  }
}

const charactersOf = ({ events }: Tail): number => (events ?? []).reduce((sum, { dataJson }) => sum + dataJson.length, 0)
