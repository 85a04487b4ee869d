/** A user as most are: a device that is online, a message a second, a look at the inbox every few seconds. */
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { HttpClient } from './http.js'
import type { Acknowledged, OrdinaryJob, OrdinaryPhase, OrdinaryReport, Phase } from './messages.js'

const SEND_EVERY_MS = 1_000
const INBOX_EVERY_MS = 5_000
/** A message that has no answer by then counts as an error, and the device connects anew. */
const ANSWER_MS_MAX = 15_000
const RETRY_MS = 500

interface Frame {
  type: string
  ref?: number
  code?: string
  seq?: number
  temporary?: boolean
  retryAfterMs?: number
  position?: string
  resume?: string
}

interface Pending {
  phase: Phase
  conversationId: string
  clientMessageId: string
  sentAt: number
  triedAt: number
  tries: number
}

export class OrdinaryUsers {
  readonly #users: OrdinaryUser[]
  readonly #phases: Partial<Record<Phase, OrdinaryPhase>> = {}
  #phase: Phase = 'warm-up'

  constructor({ users, scene }: OrdinaryJob) {
    this.#users = users.map(
      (user) => new OrdinaryUser({ ...user, url: scene.url, phase: () => this.#phase, phases: (name) => this.#of(name) }),
    )
  }

  async start(): Promise<void> {
    await Promise.all(this.#users.map((user) => user.start()))
  }

  begin(phase: Phase): void {
    this.#phase = phase
    if (phase === 'after') for (const user of this.#users) user.endSending()
  }

  report(): OrdinaryReport {
    return {
      role: 'ordinary',
      phases: this.#phases,
      acknowledged: this.#users.map(({ userId, acknowledged }) => ({ userId, messages: acknowledged })),
      unanswered: this.#users.reduce((sum, { unanswered }) => sum + unanswered, 0),
    }
  }

  #of(phase: Phase): OrdinaryPhase {
    return (this.#phases[phase] ??= { sends: 0, inboxes: 0, ackMs: [], inboxMs: [], errors: {} })
  }
}

interface UserOptions {
  userId: string
  token: string
  conversationIds: readonly string[]
  url: string
  phase: () => Phase
  phases: (phase: Phase) => OrdinaryPhase
}

class OrdinaryUser {
  readonly acknowledged: Acknowledged[] = []
  readonly #options: UserOptions
  readonly #http: HttpClient
  readonly #pending = new Map<number, Pending>()
  #ws: WebSocket | undefined
  #isLive = false
  #isSending = true
  #position: string | undefined
  #ref = 0
  #said = 0

  constructor(options: UserOptions) {
    this.#options = options
    this.#http = new HttpClient(options.url, { connections: 1 })
  }

  get userId(): string {
    return this.#options.userId
  }

  get unanswered(): number {
    return this.#pending.size
  }

  /** Resolves when it is online; then it goes on by itself. */
  async start(): Promise<void> {
    await this.#connect()
    void this.#every(SEND_EVERY_MS, () => this.#say())
    void this.#every(INBOX_EVERY_MS, () => void this.#readInbox())
  }

  endSending(): void {
    this.#isSending = false
  }

  /** On the clock, whether or not what came before has been answered. */
  async #every(ms: number, work: () => void): Promise<void> {
    for (let next = performance.now() + Math.random() * ms; this.#isSending; next += ms) {
      await sleep(Math.max(0, next - performance.now()))
      if (this.#isSending) work()
      this.#giveUpOnSilence()
    }
  }

  #failed(phase: Phase, code: string): void {
    const { errors } = this.#options.phases(phase)
    errors[code] = (errors[code] ?? 0) + 1
  }

  #say(): void {
    const { conversationIds, phase, phases } = this.#options
    const n = this.#said++
    phases(phase()).sends += 1
    this.#send({
      phase: phase(),
      conversationId: conversationIds[n % conversationIds.length]!,
      clientMessageId: `${this.userId}-${n}`,
      sentAt: performance.now(),
      triedAt: 0,
      tries: 0,
    })
  }

  #send(message: Pending): void {
    const ref = (this.#ref += 1)
    message.triedAt = performance.now()
    if (this.#isLive) message.tries += 1
    this.#pending.set(ref, message)
    const { conversationId, clientMessageId } = message
    const content = { type: 'text', text: `Message ${clientMessageId} says that all is well here, and asks how it is over there.` }
    if (this.#isLive) this.#ws!.send(JSON.stringify({ type: 'message.send', ref, conversationId, clientMessageId, content }))
  }

  async #readInbox(): Promise<void> {
    const { phase, phases, token } = this.#options
    const name = phase()
    const startedAt = performance.now()
    phases(name).inboxes += 1
    const { code } = await this.#http.ask(token, 'GET', '/inbox')
    if (code === '2xx') phases(name).inboxMs.push(performance.now() - startedAt)
    else this.#failed(name, `inbox: ${code}`)
  }

  #giveUpOnSilence(): void {
    const now = performance.now()
    const silent = [...this.#pending.values()].filter(({ triedAt }) => now - triedAt > ANSWER_MS_MAX)
    if (silent.length === 0 || !this.#isLive) return
    for (const { phase } of silent) this.#failed(phase, `send: no answer in ${ANSWER_MS_MAX / 1_000} s`)
    this.#ws?.terminate()
  }

  async #connect(): Promise<void> {
    for (;;) {
      const failure = await this.#tryOnce()
      if (failure === undefined) return
      this.#failed(this.#options.phase(), `hello: ${failure}`)
      await sleep(RETRY_MS * (0.5 + Math.random()))
    }
  }

  /** Why it did not come to a welcome, if it did not. */
  #tryOnce(): Promise<string | undefined> {
    const { url, token } = this.#options
    const ws = new WebSocket(`${url.replace('http', 'ws')}/v1/ws`, { perMessageDeflate: false, handshakeTimeout: ANSWER_MS_MAX })
    return new Promise((resolve) => {
      const hello = {
        type: 'hello',
        ref: 0,
        token,
        deviceId: 'phone',
        ...(this.#position === undefined ? {} : { position: this.#position }),
      }
      const tooLate = setTimeout(() => ws.terminate(), ANSWER_MS_MAX)
      ws.once('open', () => ws.send(JSON.stringify(hello)))
      ws.on('message', (data: Buffer) => {
        const frame = JSON.parse(data.toString()) as Frame
        if (frame.ref !== 0) return this.#take(frame)
        clearTimeout(tooLate)
        if (frame.type === 'ok') this.#welcome(ws, frame)
        resolve(frame.type === 'ok' ? undefined : (frame.code ?? 'error'))
        if (frame.type !== 'ok') ws.terminate()
      })
      ws.once('error', (error) => resolve(error.message))
      ws.once('close', (code) => {
        clearTimeout(tooLate)
        resolve(`closed with ${code}`)
        if (this.#ws === ws) this.#lost(code)
      })
    })
  }

  #welcome(ws: WebSocket, { position }: Frame): void {
    this.#ws = ws
    this.#isLive = true
    this.#position ??= position
    const unanswered = [...this.#pending.values()]
    this.#pending.clear()
    for (const message of unanswered) this.#send(message)
  }

  #lost(code: number): void {
    this.#isLive = false
    this.#ws = undefined
    this.#failed(this.#options.phase(), `closed with ${code}`)
    void sleep(RETRY_MS * Math.random()).then(() => this.#connect())
  }

  #take({ type, ref, resume, ...frame }: Frame): void {
    if (resume !== undefined) this.#position = resume
    if (ref === undefined) return
    const message = this.#pending.get(ref)
    if (!message) return
    this.#pending.delete(ref)
    if (type === 'ok') this.#answered(message, frame.seq!)
    else {
      this.#failed(message.phase, `send: ${frame.code}`)
      if (frame.temporary) setTimeout(() => this.#send(message), frame.retryAfterMs ?? RETRY_MS)
    }
  }

  #answered({ phase, sentAt, conversationId, clientMessageId, tries }: Pending, seq: number): void {
    this.#options.phases(phase).ackMs.push(performance.now() - sentAt)
    this.acknowledged.push({ conversationId, clientMessageId, seq, isFirstTry: tries === 1 })
  }
}
