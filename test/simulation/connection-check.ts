import type { Frame } from '../support/device.js'
import type { Checks, Viewer, Way } from './checks.js'
import { ensure } from './tables.js'
import type { World } from './world.js'

/** An acknowledgement may be on its way for so long that a re-push crosses it. */
const ACK_TRAVEL_MS = 5_000
const REPUSHES_MAX = 3

interface Track {
  /** The last seq that was sent, -1 where none. */
  sent: number
  /** The last seq that was sent or announced by a head. */
  last: number
  /** The user's own departure was the last event. */
  hasLeft: boolean
}

/** Keeps what was sent of one conversation. */
interface SentEvents {
  bySeq: Map<number, SentEvent>
  /** Up to here all is acknowledged. */
  acknowledgedSeq: number
}

interface SentEvent {
  repushes: number
  acknowledgedAt: number | undefined
}

/** Holds one connection to what no connection may see: holes, doubles, positions ahead of what was sent, what is not the user's. */
export class ConnectionCheck {
  readonly #world: World
  readonly #checks: Checks
  readonly #viewer: Viewer
  readonly #name: string
  readonly #tracks = new Map<string, Track>()
  readonly #sent = new Map<string, SentEvents>()
  readonly #cursors = new Map<string, { readSeq: number; deliveredSeq: number }>()
  /** Where the connection begins, by the answer to hello; undefined before it. */
  startPlace: number | undefined
  /** From here on everything has to come: without a position the live feed may begin beyond the place to resume from. */
  #duePlace = Infinity
  isResume = false
  /** What lies before this comes by the resume. */
  attachedPlace = 0

  constructor(world: World, checks: Checks, viewer: Viewer, name: string) {
    this.#world = world
    this.#checks = checks
    this.#viewer = viewer
    this.#name = name
  }

  get node() {
    return this.#viewer.node
  }

  /** The answer to hello was written. */
  begin(answer: Frame, position: string | undefined): void {
    const { truth } = this.#world
    this.startPlace = truth.placeOf(answer.position!)
    this.isResume = position !== undefined
    this.#duePlace = position === undefined ? Math.max(this.startPlace, this.node.fedPlace) : this.startPlace
    if (position !== undefined && answer.recovered !== true)
      this.#report('not-recovered', `hello with ${position} was answered with recovered ${answer.recovered}`)
    if (position !== undefined && answer.recovered === true && truth.placeOf(position) !== this.startPlace)
      this.#report('not-recovered', `hello with ${position} begins at ${answer.position}`)
  }

  frame(frame: Frame): void {
    if (frame.type === 'events') this.#events(frame)
    else if (frame.type === 'head') this.#head(frame)
    else if (frame.type === 'receipt') this.#receipt(frame)
    else return
    if (this.startPlace === undefined) this.#report('early', `${frame.type} came before the answer to hello`)
    if (frame.resume !== undefined && !frame.again) this.#covers(frame.resume)
  }

  acknowledged(conversationId: string, seq: number): void {
    const sent = this.#sent.get(conversationId)
    if (!sent) return
    for (let at = sent.acknowledgedSeq + 1; at <= seq; at++) {
      const event = sent.bySeq.get(at)
      if (event) event.acknowledgedAt ??= this.#world.clock.now
    }
    sent.acknowledgedSeq = Math.max(sent.acknowledgedSeq, seq)
  }

  #events(frame: Frame): void {
    const isMissed = this.isResume && this.#world.truth.placeOf(frame.events![0]!.position) <= this.attachedPlace
    const way: Way = frame.again ? 'again' : isMissed ? 'resume' : 'live'
    for (const event of frame.events!) {
      this.#checks.event(event, this.#viewer, way)
      if (frame.again) this.#again(event.conversationId, event.seq)
      else this.#next(event.conversationId, event.seq, event.type, event.data.userId)
      if (event.type === 'MessageSent' && event.actor.userId !== undefined)
        this.#moved(event.conversationId, event.actor.userId, event.seq, undefined, false)
    }
  }

  #next(conversationId: string, seq: number, type: string, subject: string | undefined): void {
    const { truth } = this.#world
    const { userId } = this.#viewer
    const isOwnJoin = type === 'ConversationCreated' || (type === 'MemberJoined' && subject === userId)
    const isOwnDeparture = (type === 'MemberLeft' || type === 'MemberRemoved') && subject === userId
    const track = this.#tracks.get(conversationId)
    const first = truth.seqAt(conversationId, this.startPlace ?? 0) + 1
    const expected = track ? track.last + 1 : Math.max(first, truth.seqAt(conversationId, this.#duePlace) + 1)
    if (track && seq <= track.sent) this.#report('twice', `${conversationId}@${seq} came, after ${track.sent}`)
    else if (track?.hasLeft && !isOwnJoin) this.#report('after-departure', `${conversationId}@${seq} ${type} came after the own departure`)
    else if (!track && seq < first) this.#report('twice', `${conversationId}@${seq} came; the connection begins at ${first}`)
    // A resume may jump to the own departure, without a head: also where it happens while older events are still being sent.
    else if (seq > expected && !isOwnJoin && !(isOwnDeparture && (!track || this.isResume)))
      this.#report('hole', `${conversationId}@${seq} ${type} came; expected was ${expected}`)
    if (isOwnJoin) this.#requireDepartureBefore(conversationId, seq)
    this.#tracks.set(conversationId, { sent: seq, last: Math.max(seq, track?.last ?? -1), hasLeft: isOwnDeparture })
    const sent = ensure(this.#sent, conversationId, () => ({ bySeq: new Map(), acknowledgedSeq: -1 }))
    sent.bySeq.set(seq, { repushes: 0, acknowledgedAt: undefined })
  }

  /** A user who comes back has its last departure sent first, if that lies after the place at which the connection begins. */
  #requireDepartureBefore(conversationId: string, joinedSeq: number): void {
    const { truth } = this.#world
    const departure = truth.changeBefore(conversationId, this.#viewer.userId, joinedSeq - 1)
    if (!departure || truth.placeOfEvent(conversationId, departure.seq) <= this.#duePlace) return
    if (this.#tracks.get(conversationId)?.sent !== departure.seq)
      this.#report('no-departure', `${conversationId}@${joinedSeq} came, the joining, and not ${departure.seq}, the departure before it`)
  }

  #again(conversationId: string, seq: number): void {
    const sent = this.#sent.get(conversationId)?.bySeq.get(seq)
    if (!sent) return this.#report('again', `${conversationId}@${seq} came again, and had not come before`)
    sent.repushes += 1
    if (sent.repushes > REPUSHES_MAX) this.#report('again', `${conversationId}@${seq} came again for the ${sent.repushes}th time`)
    if (sent.acknowledgedAt !== undefined && sent.acknowledgedAt + ACK_TRAVEL_MS < this.#world.clock.now)
      this.#report('again', `${conversationId}@${seq} came again, acknowledged at ${sent.acknowledgedAt.toFixed(0)}`)
  }

  #head({ conversationId, seq }: Frame): void {
    this.#checks.head(conversationId!, seq!, this.#viewer, 'head', () => `head frame of ${this.#name}`)
    const track = this.#tracks.get(conversationId!)
    if (track) track.last = Math.max(track.last, seq!)
    else {
      const first = this.#world.truth.seqAt(conversationId!, this.startPlace ?? 0)
      this.#tracks.set(conversationId!, { sent: -1, last: Math.max(seq!, first), hasLeft: false })
    }
  }

  // --- receipts ---

  #receipt({ conversationId, userId, readSeq, deliveredSeq }: Frame): void {
    const { truth } = this.#world
    // What came with the feed before a departure may be sent until the departure is.
    const told = this.#tracks.get(conversationId!)?.last ?? truth.seqAt(conversationId!, this.#duePlace)
    for (const one of new Set([userId!, this.#viewer.userId])) {
      const departure = truth.lastDeparture(conversationId!, one)
      if (departure !== undefined && departure <= told && !truth.isMember(conversationId!, one))
        this.#report('receipt-of-departed', `a receipt of ${userId}; ${one} had left ${conversationId} at ${departure}`)
    }
    this.#moved(conversationId!, userId!, readSeq, deliveredSeq, true)
  }

  /** On one connection no cursor goes back; who joins again begins anew. */
  #moved(conversationId: string, userId: string, readSeq: number | undefined, deliveredSeq: number | undefined, isReceipt: boolean): void {
    const join = this.#world.truth.changeBefore(conversationId, userId, Infinity)?.seq ?? 0
    const key = `${conversationId} ${userId} ${join}`
    const cursor = this.#cursors.get(key) ?? { readSeq: -1, deliveredSeq: -1 }
    this.#cursors.set(key, cursor)
    if (isReceipt && ((readSeq ?? Infinity) < cursor.readSeq || (deliveredSeq ?? Infinity) < cursor.deliveredSeq))
      this.#report(
        'receipt-back',
        `${userId} in ${conversationId}: read ${readSeq}, delivered ${deliveredSeq}, after ${cursor.readSeq}, ${cursor.deliveredSeq}`,
      )
    cursor.readSeq = Math.max(cursor.readSeq, readSeq ?? -1)
    cursor.deliveredSeq = Math.max(cursor.deliveredSeq, deliveredSeq ?? -1)
  }

  // --- completeness ---

  /** Whoever resumes from `position` misses nothing: all before it was sent or announced here. */
  #covers(position: string): void {
    const place = this.#world.truth.placeOf(position)
    for (const conversationId of this.#world.truth.conversationIds) {
      const missing = this.#missingUpTo(conversationId, place)
      if (missing !== undefined)
        this.#report('resume-ahead', `resume ${position} is beyond ${conversationId}@${missing}, which did not come`)
    }
  }

  /** Nothing is on its way any more: all that is the user's has come. */
  complete(): void {
    for (const conversationId of this.#world.truth.conversationIds) {
      const missing = this.#missingUpTo(conversationId, Infinity)
      if (missing !== undefined) this.#report('incomplete', `${conversationId}@${missing} did not come`)
    }
  }

  /** The last seq up to a place that had to come on this connection, where it did not. */
  #missingUpTo(conversationId: string, place: number): number | undefined {
    const { truth } = this.#world
    const { userId } = this.#viewer
    const seq = truth.seqAt(conversationId, place)
    const change = truth.changeBefore(conversationId, userId, seq)
    if (!change) return undefined
    // Of several departures the last one is enough.
    if (!change.isIn && change.seq !== truth.lastDeparture(conversationId, userId)) return undefined
    const last = change.isIn ? seq : change.seq
    if (truth.placeOfEvent(conversationId, last) <= this.#duePlace) return undefined
    return (this.#tracks.get(conversationId)?.last ?? -1) >= last ? undefined : last
  }

  #report(kind: string, text: string): void {
    this.#world.report(kind, `${this.#name}: ${text}`)
  }
}
