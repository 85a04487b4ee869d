/** A device as an app has one: it reconnects to any node, resumes where it was, and sends again what was not acknowledged. */
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { Latencies } from './figures.js'

const RECONNECT_MS_MAX = 500
const ANSWER_MS_MAX = 30_000

/** Counted over all devices. */
export interface Tally {
  acknowledged: number
  delivered: number
  /** On one connection, or of what lies before it: none of it may be. */
  reordered: number
  repeated: number
  holes: number
  /** Came again with a resume; allowed, since a client drops by seq. */
  seam: number
  notRecovered: number
  recoveries: Latencies
  acks: Latencies
}

export const newTally = (): Tally => ({
  acknowledged: 0,
  delivered: 0,
  reordered: 0,
  repeated: 0,
  holes: 0,
  seam: 0,
  notRecovered: 0,
  recoveries: new Latencies(),
  acks: new Latencies(),
})

interface Frame {
  type: string
  ref?: number
  code?: string
  temporary?: boolean
  seq?: number
  position?: string
  resume?: string
  recovered?: boolean
  again?: boolean
  events?: { seq: number }[]
}

interface Pending {
  id: string
  sentAt: number
}

export class NodeDevice {
  readonly userId: string
  readonly conversationId: string
  /** By client message id, the seq that the server acknowledged. */
  readonly acknowledged = new Map<string, number>()
  /** The highest seq that it has without a hole below. */
  last = 0
  readonly #token: string
  readonly #urls: readonly string[]
  readonly #tally: Tally
  readonly #pending = new Map<number, Pending>()
  #ws: WebSocket | undefined
  #isLive = false
  #isStopped = false
  #position: string | undefined
  #lastHere = -1
  #ref = 0
  #sent = 0
  #onNext: (() => void) | undefined

  constructor(options: { userId: string; token: string; urls: readonly string[]; tally: Tally; conversationId: string }) {
    this.userId = options.userId
    this.conversationId = options.conversationId
    this.#token = options.token
    this.#urls = options.urls
    this.#tally = options.tally
  }

  get isSettled(): boolean {
    return this.#isLive && this.#pending.size === 0
  }

  /** Resolves when it is live, on whichever node takes it. */
  async connect(): Promise<void> {
    while (!this.#isStopped && !(await this.#tryOnce())) await sleep(Math.random() * RECONNECT_MS_MAX)
  }

  say(): void {
    this.#send(`${this.userId}-${(this.#sent += 1)}`, performance.now())
  }

  /** The next fact. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#onNext = resolve
    })
  }

  stop(): void {
    this.#isStopped = true
    this.#ws?.terminate()
  }

  #tryOnce(): Promise<boolean> {
    const ws = new WebSocket(`${this.#urls[Math.floor(Math.random() * this.#urls.length)]!.replace('http', 'ws')}/v1/ws`, {
      perMessageDeflate: false,
      handshakeTimeout: ANSWER_MS_MAX,
    })
    return new Promise((resolve) => {
      const tooLate = setTimeout(() => ws.terminate(), ANSWER_MS_MAX)
      const settle = (isLive: boolean) => {
        clearTimeout(tooLate)
        resolve(isLive)
      }
      ws.once('open', () =>
        ws.send(
          JSON.stringify({
            type: 'hello',
            ref: 0,
            token: this.#token,
            deviceId: 'phone',
            ...(this.#position === undefined ? {} : { position: this.#position }),
          }),
        ),
      )
      ws.on('message', (data: Buffer) => {
        const frame = JSON.parse(data.toString()) as Frame
        if (frame.ref !== 0) return this.#take(frame)
        if (frame.type !== 'ok') return ws.terminate()
        this.#welcome(ws, frame)
        settle(true)
      })
      ws.on('error', () => {})
      ws.once('close', () => {
        settle(false)
        if (this.#ws === ws) this.#lost()
      })
    })
  }

  #welcome(ws: WebSocket, { position, recovered }: Frame): void {
    this.#ws = ws
    this.#isLive = true
    this.#position ??= position
    this.#lastHere = -1
    if (recovered === false) this.#tally.notRecovered += 1
    const unanswered = [...this.#pending.values()]
    this.#pending.clear()
    for (const { id, sentAt } of unanswered) this.#send(id, sentAt)
  }

  #lost(): void {
    this.#isLive = false
    this.#ws = undefined
    if (this.#isStopped) return
    const lostAt = performance.now()
    void sleep(Math.random() * 100)
      .then(() => this.connect())
      .then(() => this.#tally.recoveries.add(performance.now() - lostAt))
  }

  /** Kept until it is acknowledged, also while there is no connection. */
  #send(id: string, sentAt: number): void {
    const ref = (this.#ref += 1)
    this.#pending.set(ref, { id, sentAt })
    if (this.#isLive)
      this.#ws?.send(
        JSON.stringify({
          type: 'message.send',
          ref,
          conversationId: this.conversationId,
          clientMessageId: id,
          content: { type: 'text', text: 'still there?' },
        }),
      )
  }

  #take(frame: Frame): void {
    if (frame.type === 'events') this.#takeEvents(frame)
    else if (frame.type === 'head') this.#position = frame.resume
    else if (frame.ref !== undefined) this.#takeAnswer(frame.ref, frame)
  }

  #takeAnswer(ref: number, frame: Frame): void {
    const pending = this.#pending.get(ref)
    if (!pending) return
    this.#pending.delete(ref)
    if (frame.type === 'ok') {
      this.acknowledged.set(pending.id, frame.seq!)
      this.#tally.acknowledged += 1
      this.#tally.acks.add(performance.now() - pending.sentAt)
    } else if (frame.temporary) setTimeout(() => this.#send(pending.id, pending.sentAt), 100)
    else throw new Error(`a message was refused: ${JSON.stringify(frame)}`)
  }

  #takeEvents({ events = [], resume, again }: Frame): void {
    this.#position = resume
    for (const { seq } of events) {
      if (again) continue
      if (seq === this.#lastHere) this.#tally.repeated += 1
      else if (seq < this.#lastHere) this.#tally.reordered += 1
      this.#lastHere = Math.max(seq, this.#lastHere)
      if (seq <= this.last) this.#tally.seam += 1
      else {
        // The group itself, seq 0, was made before the first hello.
        if (seq !== this.last + 1) this.#tally.holes += 1
        this.last = seq
        this.#tally.delivered += 1
      }
    }
    this.#onNext?.()
  }
}
