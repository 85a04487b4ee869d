import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { bytesTakenOf } from '../bytes-taken.js'
import { FRAGMENTS_MAX, FRAME_BYTES_MAX } from '../schemas/common.js'
import { DeviceSocket } from './device-socket.js'
import { Refusal, type RefusalCode, unavailable } from '../domain/errors.js'
import { type Position, StoreUnavailable } from '../domain/event-store.js'
import type { Logger } from '../domain/logger.js'
import type { RecallsAhead } from '../domain/recalls-ahead.js'
import type { Account } from '../load/account.js'
import type { Turn, Turns } from '../load/turns.js'
import {
  type ClientFrame,
  NotAFrame,
  WrongFrame,
  closeCodes,
  errorFrame,
  eventsFrame,
  headFrame,
  jsonFrame,
  parseFrame,
  refusalFrame,
} from './frames.js'
import type { Outbox } from './outbox.js'
import { FrameRate } from './frame-rate.js'
import type { Attached, Delivery } from './delivery.js'
import { HELD_BYTES_MAX, HeldDeliveries } from './held-deliveries.js'
import type { UnackedEvents } from './unacked-events.js'

/** Bytes that may wait for a socket that does not read. */
export const QUEUED_BYTES_MAX = 1024 * 1024
const UNANSWERED_MAX = 256
/** What a frame waits for has shorter deadlines; this one is for all that it waits for together. */
const ANSWER_MS_MAX = 10_000
const DRAINED_BYTES = 256 * 1024
/** A page of events, as an answer. */
const PAGE_ANSWER_BYTES = 256 * 1024
const SMALL_ANSWER_BYTES = 2 * 1024
/** What the answers that are being made for one socket may come to together; further frames wait, unread. */
export const ANSWERS_BYTES_MAX = 768 * 1024
/** The same of the frames themselves that are worked on. */
export const FRAMES_IN_HAND_BYTES_MAX = 512 * 1024

/** After so many refusals in a row because its budget is spent, a socket is not read until units are back, at most for REST_MS_MAX. */
const REFUSALS_MAX = 20
const REST_MS_MAX = 1_000

const settled = Promise.resolve()

/** The actor of a connection without hello. */
export const nobody = { userId: '' }

/** A frame that is being worked on. */
export interface FrameInHand {
  readonly ref: number | undefined
  /** Counts the frame itself. */
  readonly bytes: number
  readonly answerBytes: number
  readonly since: number
  /** It has been answered already, because the answer did not come in time. */
  isLate: boolean
  /** Set by the handler; it ends with the answer. */
  turn: Turn | undefined
  answered: Promise<void>
}

export type Answer = Promise<object | undefined> | object | undefined
export type Handle = (connection: Connection, frame: ClientFrame, inHand: FrameInHand) => Answer

export interface ConnectionOptions {
  sessionId: string
  outbox: Outbox
  handle: Handle
  /** Takes the turn of a frame back. */
  turns: Pick<Turns, 'end'>
  logger: Logger
  framesPerSecond: number | undefined
  recallsAhead: RecallsAhead
}

/** A device's socket: reads frames in order, answers each once, and writes what it is handed, all of one loop turn at once. */
export class Connection {
  readonly sessionId: string
  /** Set by hello; one object for all that the device does. */
  actor: { readonly userId: string } = nobody
  /** Who pays for what it does; set by hello. */
  account: Account | undefined
  deviceId = ''
  /** Of its token (ms); null counts as before any revocation. */
  issuedAt: number | null = null
  /** The conversation that is open on this device. */
  activeConversationId: string | null = null
  unacked: UnackedEvents | undefined
  /** Where its live feed begins; facts that waited to be merged then come with the feed too. */
  attached: Attached = { position: '', resume: '', merging: new Map(), departures: 0 }
  /** Of the last facts that went out. */
  resume: Position = ''
  isOpen = true
  onClose: () => void = () => {}
  /** Its hello is answered: it is known who it is. */
  onHello: () => void = () => {}

  readonly #ws: WebSocket
  readonly #socket: Duplex
  readonly #outbox: Outbox
  readonly #handle: Handle
  readonly #turns: Pick<Turns, 'end'>
  readonly #logger: Logger
  readonly #recallsAhead: RecallsAhead
  readonly #rate: FrameRate | undefined
  /** In the order in which they came. */
  readonly #inFlight = new Set<FrameInHand>()
  /** Count these frames, and what their answers may come to. */
  #frameBytes = 0
  #answerBytes = 0
  /** Frames that had been read already when too much was in flight, in their order. */
  #waiting: { frame: ClientFrame; bytes: number }[] = []
  /** When something of what waited was last seen to go. */
  #movedAt = performance.now()
  readonly #untilDrained = new Set<() => void>()
  #lastWritten = -1
  #queue: Buffer[] = []
  #queuedBytes = 0
  /** Is written to at the end of this loop turn. */
  #isDue = false
  /** Something came since the last look. */
  #isHeard = true
  #heardAt = 0
  #pingedAt = performance.now()
  #isPaused = false
  #refusedInARow = 0
  #rest: NodeJS.Timeout | undefined
  /** Pushes that came before hello was answered. */
  #early: Buffer[] | undefined
  #earlyBytes = 0
  #held: HeldDeliveries | undefined
  #resumed: Map<string, number> | undefined

  constructor(ws: WebSocket, socket: Duplex, options: ConnectionOptions) {
    this.sessionId = options.sessionId
    this.#ws = ws
    this.#socket = socket
    this.#outbox = options.outbox
    this.#handle = options.handle
    this.#turns = options.turns
    this.#logger = options.logger
    this.#recallsAhead = options.recallsAhead
    this.#rate = options.framesPerSecond === undefined ? undefined : new FrameRate(options.framesPerSecond)
    if (ws instanceof DeviceSocket) ws.beforeTooLarge = () => this.#refuseTooLarge()
    ws.on('message', (data: Buffer, isBinary) => this.#receive(data, isBinary))
    ws.on('pong', () => {
      this.#isHeard = true
    })
    ws.on('close', () => this.#closed())
    // A close always follows an error; what went wrong on a client's line is no news.
    ws.on('error', () => {})
  }

  /** Empty before hello. */
  get userId(): string {
    return this.actor.userId
  }

  get isLive(): boolean {
    return this.userId !== '' && this.isOpen
  }

  // --- writing ---

  /** Queues a frame for the end of this loop turn. */
  send(frame: Buffer): void {
    if (!this.isOpen) return
    if (!this.#isDue) this.#outbox.add(this)
    this.#isDue = true
    this.#enqueue(frame)
  }

  /** Queues a frame that thousands get: it leaves a moment later, or with what is sent sooner. */
  #sendLater(frame: Buffer): void {
    if (!this.isOpen) return
    if (this.#queue.length === 0) this.#outbox.addLater(this)
    this.#enqueue(frame)
  }

  #enqueue(frame: Buffer): void {
    this.#queue.push(frame)
    this.#queuedBytes += frame.length
  }

  sendJson(frame: object): void {
    this.send(jsonFrame(frame))
  }

  /** What is no answer: never before the one to hello. */
  push(frame: Buffer, canWait = false): void {
    if (this.#early) this.#pushEarly(frame)
    else if (canWait) this.#sendLater(frame)
    else this.send(frame)
  }

  #pushEarly(frame: Buffer): void {
    this.#early?.push(frame)
    this.#earlyBytes += frame.length
    if (this.#earlyBytes > HELD_BYTES_MAX) this.refuse(closeCodes.tooSlow, undefined)
  }

  /** Facts from the live feed; held back while older ones are still being sent. `canWait`: where thousands get them. */
  deliver(delivery: Delivery, canWait = false): void {
    if (this.#held) this.#held.hold(delivery)
    else this.#sendNews(delivery, canWait)
  }

  #sendNews(delivery: Delivery, canWait = false): void {
    const news = this.#resumed ? this.#withoutResumed(delivery) : delivery
    if (news) this.#sendFacts(news, canWait)
  }

  /** What waited to be merged when this device attached comes to it by the resume: the merged frame is cut for it. */
  skipResumed(upTo: ReadonlyMap<string, number>): void {
    if (upTo.size > 0) this.#resumed = new Map(upTo)
  }

  #withoutResumed(delivery: Delivery): Delivery | undefined {
    const { conversationId, firstSeq, lastSeq, events, resume } = delivery
    const upTo = this.#resumed?.get(conversationId)
    if (upTo === undefined) return delivery
    if (lastSeq >= upTo) this.#resumed?.delete(conversationId)
    if (this.#resumed?.size === 0) this.#resumed = undefined
    // A head repeats nothing, and a device that has become active is owed one.
    if (firstSeq === undefined || firstSeq > upTo) return delivery
    if (lastSeq <= upTo) return undefined
    const rest = events.slice(upTo + 1 - firstSeq)
    return { frame: eventsFrame(rest, resume), conversationId, firstSeq: upTo + 1, lastSeq, events: rest, resume }
  }

  #sendFacts(delivery: Delivery, canWait = false): void {
    this.resume = delivery.resume
    this.unacked?.track(delivery)
    if (canWait) this.#sendLater(delivery.frame)
    else this.send(delivery.frame)
  }

  /** From now on facts wait until `release`. */
  hold(): void {
    this.#early = []
    this.#earlyBytes = 0
    this.holdAnew()
  }

  /** What was held so far comes by the resume: only what follows is held. */
  holdAnew(): void {
    this.#held = new HeldDeliveries(this.userId, this.#recallsAhead)
  }

  /** Answers hello; facts go on being held. */
  welcome(answer: object): void {
    this.sendJson(answer)
    for (const frame of this.#early ?? []) this.send(frame)
    this.#early = undefined
  }

  /** Hello has failed: what was held for it is void. */
  turnAway(): void {
    this.#early = undefined
    this.#held = undefined
  }

  /** Sends what was held back, and a `head` for what did not fit; then live. */
  release(): void {
    const held = this.#held
    this.#held = undefined
    if (!held) return
    for (const delivery of held.kept()) this.#sendNews(delivery)
    // Together these stand for everything that did not fit, so only the last of them may move the position to resume from.
    const { departures, heads } = held.late()
    const late = [...departures, ...heads.values()]
    const furthest = late.reduce((max, { resume }) => (resume > max ? resume : max), this.resume)
    const resumeOf = (one: (typeof late)[number]) => (one === late.at(-1) ? furthest : this.resume)
    for (const departure of departures) {
      const resume = resumeOf(departure)
      this.#sendFacts({ ...departure, resume, frame: eventsFrame(departure.events, resume) })
    }
    for (const [conversationId, head] of heads) {
      this.resume = resumeOf(head)
      this.send(headFrame(conversationId, head.seq, this.resume))
    }
  }

  /** Facts of a resume go out past the hold. */
  sendPastHold(delivery: Delivery): void {
    this.#sendFacts(delivery)
  }

  /** What this connection has in memory for its device: written but not taken by the socket, queued, or held back. */
  get unsentBytes(): number {
    return this.#queuedBytes + this.#socket.writableLength + (this.#held?.bytes ?? 0) + (this.#early ? this.#earlyBytes : 0)
  }

  /** Closes a socket of which nothing was taken for a while though something waits; one that reads slowly moves on. */
  closeStalled(now: number, afterMs: number): void {
    const written = bytesTakenOf(this.#socket)
    if (written !== this.#lastWritten || this.#socket.writableLength === 0) {
      this.#lastWritten = written
      this.#movedAt = now
    } else if (now - this.#movedAt >= afterMs) {
      if (this.isOpen) this.refuse(closeCodes.tooSlow, undefined)
      else this.#ws.terminate()
      this.#movedAt = now
    }
  }

  /** Resolves when little is queued, or this is closed: see `closeStalled`. */
  async drained(): Promise<void> {
    while (this.isOpen && this.#queuedBytes + this.#socket.writableLength > DRAINED_BYTES) {
      await new Promise<void>((resolve) => {
        const done = () => {
          this.#socket.off('drain', done)
          this.#untilDrained.delete(done)
          resolve()
        }
        this.#socket.once('drain', done)
        this.#untilDrained.add(done)
        this.flush()
        if (this.#socket.writableLength <= DRAINED_BYTES || !this.isOpen) done()
      })
    }
  }

  #stopWaiting(): void {
    clearTimeout(this.#rest)
    this.#waiting = []
    for (const done of this.#untilDrained) done()
  }

  /** Everything queued in one write. Called by the outbox at the end of a loop turn. */
  flush(): void {
    this.#isDue = false
    const queue = this.#queue
    const [first] = queue
    if (first === undefined) return
    this.#queue = []
    const bytes = this.#queuedBytes
    this.#queuedBytes = 0
    if (!this.#socket.writable) return
    this.#socket.write(queue.length === 1 ? first : Buffer.concat(queue, bytes))
    if (this.#socket.writableLength > QUEUED_BYTES_MAX) this.refuse(closeCodes.tooSlow, undefined)
  }

  // --- closing ---

  /** Says why, and closes. */
  refuse(closeCode: number, why: { ref?: number; code: RefusalCode; message: string } | undefined): void {
    if (!this.isOpen) return
    if (why) this.send(errorFrame(why.ref, why.code, why.message))
    this.close(closeCode)
  }

  close(closeCode: number, reason = ''): void {
    if (!this.isOpen) return
    this.isOpen = false
    this.flush()
    this.#stopWaiting()
    this.#ws.close(closeCode, reason)
    this.onClose()
  }

  terminate(): void {
    this.isOpen = false
    this.#stopWaiting()
    this.#ws.terminate()
  }

  #closed(): void {
    const wasOpen = this.isOpen
    this.isOpen = false
    this.#queue = []
    this.#stopWaiting()
    this.turnAway()
    this.unacked = undefined
    if (wasOpen) this.onClose()
  }

  /** A ping frame every `everyMs`; a socket that was silent for twice that is given up. */
  heartbeat(now: number, everyMs: number): void {
    // Who is not read just now can't be heard either.
    if (this.#isHeard || this.#isPaused) this.#heardAt = now
    this.#isHeard = false
    if (now - this.#heardAt >= 2 * everyMs) return this.#ws.terminate()
    if (now - this.#pingedAt < everyMs) return
    this.#pingedAt += everyMs
    if (this.#ws.readyState === this.#ws.OPEN) this.#ws.ping()
  }

  // --- reading ---

  #receive(data: Buffer, isBinary: boolean): void {
    this.#isHeard = true
    if (!this.isOpen) return
    if (isBinary) return this.#refuseNotAFrame('Frames are text, not binary.')
    const verdict = this.#rate?.take() ?? 'allowed'
    if (verdict === 'close')
      return this.refuse(closeCodes.tooManyFrames, { code: 'rate_limited', message: 'Too many frames, for too long.' })
    try {
      const frame = parseFrame(data.toString('utf8'))
      if (verdict === 'limited')
        throw new WrongFrame(
          frame.type,
          'ref' in frame ? frame.ref : undefined,
          new Refusal('rate_limited', 'Too many frames a second: send it again later.', { retryAfterMs: this.#rate?.retryAfterMs ?? 0 }),
        )
      this.#takeInTurn(frame, data.length)
    } catch (error) {
      if (error instanceof NotAFrame) this.#refuseNotAFrame(error.message)
      else if (error instanceof WrongFrame) this.#refuseFrame(error)
      else this.#answerError(undefined, error)
    }
  }

  /** The same `hello` would be refused again, so its connection ends: it would only be said in a loop. */
  #refuseFrame({ type, ref, refusal }: WrongFrame): void {
    const { code, message, temporary } = refusal
    if (type === 'hello' && this.userId === '' && !temporary)
      return this.refuse(closeCodes.tokenRefused, { ...(ref === undefined ? {} : { ref }), code, message })
    this.send(refusalFrame(ref, refusal))
  }

  /** Too many bytes or fragments: the message was not read to its end, so its `ref` is not known. */
  #refuseTooLarge(): void {
    const message = `A frame has at most ${FRAME_BYTES_MAX} bytes, in at most ${FRAGMENTS_MAX} fragments: it was not read.`
    this.send(errorFrame(undefined, 'payload_too_large', message))
    this.flush()
  }

  #refuseNotAFrame(message: string): void {
    this.refuse(closeCodes.notAFrame, { code: 'invalid_request', message })
  }

  /** Frames are taken in their order, while they and what they may be answered with fit into the bounds. */
  #takeInTurn(frame: ClientFrame, bytes: number): void {
    if (!this.#rest && this.#waiting.length === 0 && this.#hasRoomFor(frame, bytes)) return this.#take(frame, bytes)
    this.#waiting.push({ frame, bytes })
    this.#pause()
  }

  #hasRoomFor(frame: ClientFrame, bytes: number): boolean {
    return (
      this.#inFlight.size < UNANSWERED_MAX &&
      this.#answerBytes + answerBytesOf(frame) <= ANSWERS_BYTES_MAX &&
      this.#frameBytes + bytes <= FRAMES_IN_HAND_BYTES_MAX
    )
  }

  #takeWaiting(): void {
    for (
      let next = this.#waiting[0];
      this.isOpen && !this.#rest && next && this.#hasRoomFor(next.frame, next.bytes);
      next = this.#waiting[0]
    ) {
      this.#waiting.shift()
      this.#take(next.frame, next.bytes)
    }
  }

  /** Hands a frame on; none waits for the answer to the one before. */
  #take(frame: ClientFrame, bytes: number): void {
    const ref = 'ref' in frame ? frame.ref : undefined
    if (frame.type === 'ping') return this.#pong(ref)
    const answerBytes = answerBytesOf(frame)
    const inHand: FrameInHand = { ref, bytes, answerBytes, since: performance.now(), isLate: false, turn: undefined, answered: settled }
    try {
      const answer = this.#handle(this, frame, inHand)
      this.#refusedInARow = 0
      if (answer instanceof Promise) return this.#track(inHand, answer)
      this.#answer(ref, answer)
    } catch (error) {
      this.#answerError(ref, error)
      if (error instanceof Refusal && error.code === 'rate_limited') this.#refusedForBudget(error)
    }
    this.#endTurn(inHand)
  }

  /** To refuse costs as much as a small frame: a client that asks on as if nothing had been said is left unread for a while. */
  #refusedForBudget({ retryAfterMs = REST_MS_MAX }: Refusal): void {
    this.#refusedInARow += 1
    if (this.#refusedInARow < REFUSALS_MAX) return
    this.#pause()
    this.#rest = setTimeout(
      () => {
        this.#rest = undefined
        this.#readOn()
      },
      Math.min(retryAfterMs, REST_MS_MAX),
    )
  }

  #endTurn({ turn }: FrameInHand): void {
    if (turn) this.#turns.end(turn)
  }

  #answer(ref: number | undefined, fields: object | undefined): void {
    if (ref !== undefined && fields !== undefined) this.sendJson({ type: 'ok', ref, ...fields })
  }

  #answerError(ref: number | undefined, error: unknown): void {
    if (error instanceof Refusal) return this.send(refusalFrame(ref, error))
    if (error instanceof StoreUnavailable)
      return this.send(errorFrame(ref, 'unavailable', 'The log can not answer now: send the same again.'))
    this.#logger.error({ err: error, sessionId: this.sessionId }, 'a frame could not be handled')
    this.send(errorFrame(ref, 'internal', 'The server could not handle this frame: it is a bug.'))
  }

  /** A pong says that all frames before its ping have been handled. */
  #pong(ref: number | undefined): void {
    const pong = { type: 'pong', ...(ref === undefined ? {} : { ref }) }
    if (this.#inFlight.size === 0) this.sendJson(pong)
    else void Promise.all([...this.#inFlight].map(({ answered }) => answered)).then(() => this.sendJson(pong))
  }

  /** A client that does not wait for answers is read no faster than it is answered. */
  #track(inHand: FrameInHand, answer: Promise<object | undefined>): void {
    inHand.answered = answer.then(
      (fields) => {
        if (!inHand.isLate) this.#answer(inHand.ref, fields)
        return this.#untrack(inHand)
      },
      (error: unknown) => {
        if (!inHand.isLate) this.#answerError(inHand.ref, error)
        return this.#untrack(inHand)
      },
    )
    this.#inFlight.add(inHand)
    this.#frameBytes += inHand.bytes
    this.#answerBytes += inHand.answerBytes
    if (this.#inFlight.size >= UNANSWERED_MAX) this.#pause()
  }

  /** Frames whose answer takes too long are answered all the same. Called about once a second. */
  answerLate(now: number): void {
    for (const inHand of this.#inFlight) {
      if (now - inHand.since < ANSWER_MS_MAX) return
      if (inHand.isLate) continue
      inHand.isLate = true
      this.#answerError(inHand.ref, unavailable('No answer came in time, and what became of this is not known: send the same again.'))
    }
  }

  /** A large answer counts until the device has taken what was sent before: one that asks and does not read is not worked for. */
  #untrack(inHand: FrameInHand): void | Promise<void> {
    const { answerBytes } = inHand
    this.#endTurn(inHand)
    this.#inFlight.delete(inHand)
    this.#frameBytes -= inHand.bytes
    if (answerBytes > SMALL_ANSWER_BYTES) return this.drained().then(() => this.#makeRoom(answerBytes))
    this.#makeRoom(answerBytes)
  }

  #makeRoom(bytes: number): void {
    this.#answerBytes -= bytes
    this.#readOn()
  }

  #readOn(): void {
    if (this.#waiting.length > 0) this.#takeWaiting()
    if (this.#isPaused && !this.#rest && this.#waiting.length === 0 && this.#inFlight.size < UNANSWERED_MAX / 2) this.#unpause()
  }

  #pause(): void {
    if (this.#isPaused) return
    this.#isPaused = true
    this.#ws.pause()
  }

  #unpause(): void {
    this.#isPaused = false
    this.#ws.resume()
  }
}

/** What a frame may be answered with, roughly. */
const answerBytesOf = ({ type }: ClientFrame): number => (type === 'events.get' ? PAGE_ANSWER_BYTES : SMALL_ANSWER_BYTES)
