import type { Conversations } from '../domain/conversations.js'
import type { EventStore, Position, RecordedEvent } from '../domain/event-store.js'
import { conversationStream } from '../domain/ids.js'
import type { ReadQueries } from '../projections/read-models.js'
import { type LocalMember, type LocalUser, rememberLeft } from './audience.js'
import type { Connection } from './connection.js'
import type { Attached } from './delivery.js'
import { cuts } from './deliver.js'
import { eventsFrame, jsonFrame } from './frames.js'
import type { Hub } from './hub.js'

/** More than this is not resumed: the client reads the inbox and what it needs. */
export const MISSED_EVENTS_MAX = 10_000
const PAGE_EVENTS = 500
/** The first look back; most devices were away for a moment. */
const FIRST_LOOK_EVENTS = 64
const TAILS_AT_ONCE = 4

/** What a device missed of one conversation: facts from `from` on, up to the place where its live feed begins. */
interface Tail {
  conversationId: string
  from: number
  count: number
  /** Where they were read already to find the beginning. */
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

  /** What was missed in (position, attached], or undefined when it is more than is resumed. @throws {Refusal} unavailable */
  async find(user: LocalUser, position: Position, attached: Attached): Promise<Missed | undefined> {
    const { readModels } = this.#options
    await readModels.waitFor(attached.position)
    const departures = (await readModels.memberships.departuresAfter(user.userId, position)).filter(
      (departure) => departure.position <= attached.position && !user.conversations.has(departure.conversationId),
    )
    for (const { conversationId, seq } of departures) rememberLeft(user, conversationId, seq)
    const moved = [...user.conversations.values()].filter(({ audience }) => audience.lastPosition > position)
    const tails: Tail[] = departures.map(({ conversationId, seq }) => ({ conversationId, from: seq, count: 1, events: undefined }))
    let count = tails.length
    for (let at = 0; at < moved.length; at += TAILS_AT_ONCE) {
      const found = await Promise.all(
        moved.slice(at, at + TAILS_AT_ONCE).map((member) => this.#findTail(member, position, attached, MISSED_EVENTS_MAX - count)),
      )
      for (const tail of found) {
        if (!tail) return undefined
        count += tail.count
        if (tail.count > 0) tails.push(tail)
      }
      if (count > MISSED_EVENTS_MAX) return undefined
    }
    return { tails }
  }

  /** Sends what was found, then the receipts that moved. The device reads at its own pace. */
  async send(connection: Connection, user: LocalUser, missed: Missed, position: Position, attached: Attached): Promise<void> {
    for (const [index, tail] of missed.tails.entries()) {
      // Until all has been sent, a device that breaks off must begin again from where it was.
      await this.#sendTail(connection, tail, position, index === missed.tails.length - 1 ? attached.position : position)
      if (!connection.isOpen) return
    }
    await this.#sendReceipts(connection, user, position)
  }

  /** Looks backwards from the attach point for the first fact after the position, in growing steps. */
  async #findTail(
    { audience, joinedPosition, joinedSeq }: LocalMember,
    position: Position,
    attached: Attached,
    countMax: number,
  ): Promise<Tail | undefined> {
    const { conversationId } = audience
    const stream = conversationStream(conversationId)
    let events: RecordedEvent[] = []
    for (let limit = FIRST_LOOK_EVENTS; ; limit *= 4) {
      const from = events[0] ? events[0].revision - 1 : undefined
      const asked = { direction: 'backwards', limit, ...(from === undefined ? {} : { from }) } as const
      const { events: page, isEnd } = await this.#options.store.readStream(stream, asked)
      const missed = page
        .filter((event) => event.position > position && event.revision >= (joinedPosition > position ? joinedSeq : 0))
        .reverse()
      events = [...missed, ...events]
      if (missed.length < page.length || isEnd) break
      if (events.length > countMax + PAGE_EVENTS) return undefined
    }
    events = events.filter((event) => event.position <= attached.position)
    if (events.length > countMax) return undefined
    return {
      conversationId,
      from: events[0]?.revision ?? 0,
      count: events.length,
      events: events.length > PAGE_EVENTS ? undefined : events,
    }
  }

  async #sendTail(connection: Connection, tail: Tail, resume: Position, lastResume: Position): Promise<void> {
    const { store, conversations } = this.#options
    const end = tail.from + tail.count
    for (let from = tail.from; from < end; ) {
      const asked = { from, limit: Math.min(PAGE_EVENTS, end - from) }
      const events = tail.events ?? (await store.readStream(conversationStream(tail.conversationId), asked)).events
      const state = await conversations.stateOf(tail.conversationId)
      const encoded = await conversations.encodeEvents(tail.conversationId, events, state)
      const pieces = cuts(encoded)
      for (const [index, piece] of pieces.entries()) {
        const isLast = from + events.length >= end && index === pieces.length - 1
        const upTo = isLast ? lastResume : resume
        const texts = encoded.slice(piece.from, piece.to)
        connection.sendPastHold({
          frame: eventsFrame(texts, upTo),
          conversationId: tail.conversationId,
          firstSeq: from + piece.from,
          lastSeq: from + piece.to - 1,
          events: texts,
          resume: upTo,
        })
        await connection.drained()
        if (!connection.isOpen) return
      }
      from += events.length
    }
  }

  async #sendReceipts(connection: Connection, user: LocalUser, position: Position): Promise<void> {
    const ids = [...user.conversations.values()]
      .filter(({ audience }) => audience.memberCount <= this.#options.fanoutOnWriteMembersMax)
      .map(({ audience }) => audience.conversationId)
    if (ids.length === 0) return
    for (const { conversationId, userId, readSeq, deliveredSeq } of await this.#options.readModels.receipts.after(ids, position)) {
      const moved = { ...(readSeq === null ? {} : { readSeq }), ...(deliveredSeq === null ? {} : { deliveredSeq }) }
      connection.send(jsonFrame({ type: 'receipt', conversationId, userId, ...moved }))
      await connection.drained()
    }
  }
}
