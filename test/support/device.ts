import { WebSocket } from 'ws'

export interface Event {
  conversationId: string
  seq: number
  type: string
  at: string
  actor: { userId?: string; app?: string }
  data: { [field: string]: unknown } & {
    content?: unknown
    ordinal?: number
    clientMessageId?: string
    userId?: string
    messageSeq?: number
  }
  position: string
  head: number
}

/** What a server sends: its fields as they came. */
export interface Frame {
  type: string
  ref?: number
  code?: string
  message?: string
  temporary?: boolean
  conversationId?: string
  seq?: number
  ordinal?: number
  position?: string
  resume?: string
  recovered?: boolean
  reason?: string
  again?: boolean
  duplicate?: boolean
  unchanged?: boolean
  events?: Event[]
  head?: number
  userId?: string
  deviceId?: string
  sessionId?: string
  heartbeatMs?: number
  sentAt?: string
  readSeq?: number
  deliveredSeq?: number
  unread?: number
  mentions?: number
  total?: number
  online?: boolean
  lastSeenAt?: string | null
  on?: boolean
  reconnectAfterMs?: number
  items?: { userId: string; online: boolean; lastSeenAt: string | null }[]
}

export interface Hello {
  token: string
  deviceId?: string
  position?: string | undefined
  acks?: boolean
}

export interface DeviceOptions {
  path?: string
  headers?: Record<string, string>
  /** Whether pings of the server are answered. */
  autoPong?: boolean
}

const PATIENCE_MS = 30_000
const pushTypes = new Set(['ok', 'error', 'pong', 'events', 'head', 'receipt', 'unread', 'presence', 'typing', 'goaway'])

/**
 * A device with one WebSocket. It keeps every frame, waits for conditions and never for time, and holds the server to what
 * no connection may see otherwise: dense seqs, one answer a ref, nothing but errors before the answer to hello.
 */
export class Device {
  readonly frames: Frame[] = []
  /** What the server did on this connection that no connection may see. */
  readonly violations: string[] = []
  pings = 0
  closeCode: number | undefined
  hello: Frame | undefined
  /** Resolves when the socket is closed, whoever did it. */
  readonly closed: Promise<void>
  /** What to give to the next hello. */
  position: string | undefined
  readonly #ws: WebSocket
  readonly #sequences = new Sequences()
  /** By ref; looked up rather than searched for, since there may be many. */
  readonly #answers = new Map<number, Frame>()
  readonly #looks = new Set<() => void>()
  #ref = 0
  #saysHello = false

  private constructor(ws: WebSocket) {
    this.#ws = ws
    ws.on('message', (data: Buffer, isBinary) => this.#receive(data.toString('utf8'), isBinary))
    ws.on('ping', () => {
      this.pings += 1
      this.#wake()
    })
    ws.on('error', () => {})
    this.closed = new Promise((resolve) => {
      ws.on('close', (code) => {
        this.closeCode = code
        this.#wake()
        resolve()
      })
    })
  }

  /** A socket on which nothing was said yet. @throws when the upgrade is refused: `refused <status>: <body>` */
  static open(url: string, { path = '/v1/ws', headers = {}, autoPong = true }: DeviceOptions = {}): Promise<Device> {
    const ws = new WebSocket(url.replace(/^http/, 'ws') + path, { headers, autoPong, perMessageDeflate: false, maxPayload: 0 })
    const device = new Device(ws)
    return new Promise((resolve, reject) => {
      ws.once('open', () => resolve(device))
      ws.once('error', reject)
      ws.once('unexpected-response', (_request, response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => reject(new Error(`refused ${response.statusCode}: ${Buffer.concat(chunks).toString()}`)))
      })
    })
  }

  // --- saying ---

  /** Says hello; gives its answer, or nothing where the socket closed without one. */
  async sayHello(hello: Hello): Promise<Frame> {
    this.#saysHello = true
    const answer = await this.request('hello', { ...hello })
    if (answer.type === 'ok') {
      this.hello = answer
      this.position ??= answer.recovered === false ? answer.position : (hello.position ?? answer.position)
    }
    return answer
  }

  /** Sends a request with a ref of its own; gives its one answer. */
  request(type: string, fields: object = {}): Promise<Frame> {
    const ref = this.nextRef()
    this.send({ type, ref, ...fields })
    return this.answerTo(ref)
  }

  answerTo(ref: number): Promise<Frame> {
    return this.until(() => this.#answers.get(ref), `the answer to ref ${ref}`)
  }

  /** The answer, which must be `ok`. */
  async ask(type: string, fields: object = {}): Promise<Frame> {
    const answer = await this.request(type, fields)
    if (answer.type !== 'ok') throw new Error(`expected ok to ${type}; came ${JSON.stringify(answer)}`)
    return answer
  }

  /** A round trip: the server has handled all frames before. */
  async settled(): Promise<void> {
    const ref = this.nextRef()
    this.send({ type: 'ping', ref })
    await this.until(() => this.frames.findLast((frame) => frame.type === 'pong' && frame.ref === ref), 'pong')
  }

  nextRef(): number {
    return ++this.#ref
  }

  send(frame: object): void {
    this.#ws.send(JSON.stringify(frame))
  }

  sendRaw(data: string | Buffer, options: { binary?: boolean; fin?: boolean } = {}): void {
    this.#ws.send(data, options)
  }

  /** Stops reading: what comes stays in the socket. */
  pause(): void {
    this.#ws.pause()
  }

  read(): void {
    this.#ws.resume()
  }

  close(): void {
    this.#ws.close()
  }

  /** As when the line is cut. */
  terminate(): void {
    this.#ws.terminate()
  }

  // --- seeing ---

  ofType(type: string): Frame[] {
    return this.frames.filter((frame) => frame.type === type)
  }

  /** Pushed facts, without those that were pushed again. */
  events(conversationId?: string): Event[] {
    return this.frames
      .flatMap((frame) => (frame.type === 'events' && !frame.again ? frame.events! : []))
      .filter((event) => conversationId === undefined || event.conversationId === conversationId)
  }

  seqs(conversationId: string): number[] {
    return this.events(conversationId).map((event) => event.seq)
  }

  /** The last fact or `head` of a conversation that came. */
  lastSeq(conversationId: string): number {
    return this.#sequences.seenOf(conversationId)
  }

  /** The first frame, here already or still to come. */
  waitFor(predicate: (frame: Frame) => boolean, what: string): Promise<Frame> {
    return this.until(() => this.frames.find(predicate), what)
  }

  waitForEvent(predicate: (event: Event) => boolean, what: string): Promise<Event> {
    return this.until(() => this.events().find(predicate), what)
  }

  /** All facts up to `seq` are here, or a `head` says that they are there. */
  async waitForSeq(conversationId: string, seq: number): Promise<void> {
    await this.until(() => this.lastSeq(conversationId) >= seq, `seq ${seq} of ${conversationId}`)
  }

  async waitForClose(): Promise<number> {
    await this.until(() => this.closeCode !== undefined, 'the socket to close')
    return this.closeCode!
  }

  /** Looked at anew after each frame, ping and close. */
  until<T>(probe: () => T | undefined | false, what: string): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (end: () => void) => {
        clearTimeout(timer)
        this.#looks.delete(look)
        end()
      }
      const look = () => {
        const found = probe()
        if (found) settle(() => resolve(found))
        else if (this.closeCode !== undefined)
          settle(() => reject(new Error(`expected ${what}, but the socket is closed (${this.closeCode})`)))
      }
      const timer = setTimeout(
        () => settle(() => reject(new Error(`expected ${what} within ${PATIENCE_MS} ms; came ${this.#summary()}`))),
        PATIENCE_MS,
      )
      this.#looks.add(look)
      look()
    })
  }

  #receive(text: string, isBinary: boolean): void {
    let frame: Frame
    try {
      frame = JSON.parse(text) as Frame
    } catch {
      this.violations.push(`a frame that is no JSON: ${text.slice(0, 100)}`)
      return
    }
    if (isBinary) this.violations.push('a binary frame')
    this.#judge(frame)
    this.frames.push(frame)
    this.#wake()
  }

  #judge(frame: Frame): void {
    const { type, ref } = frame
    if (!pushTypes.has(type)) this.violations.push(`a frame of type ${type}`)
    if (
      this.#saysHello &&
      this.hello === undefined &&
      !this.frames.some((one) => one.type === 'ok') &&
      !['ok', 'error', 'pong', 'goaway'].includes(type)
    ) {
      this.violations.push(`${type} came before the answer to hello`)
    }
    if ((type === 'ok' || type === 'error') && ref !== undefined) {
      if (this.#answers.has(ref)) this.violations.push(`ref ${ref} was answered twice`)
      this.#answers.set(ref, frame)
    }
    if (type === 'events' || type === 'head') {
      if (typeof frame.resume !== 'string') this.violations.push(`${type} without resume`)
      else this.position = frame.resume
    }
    if (type === 'head') this.#sequences.head(frame.conversationId!, frame.seq!)
    if (type === 'events') {
      if (frame.events!.length === 0) this.violations.push('events without an event')
      for (const event of frame.events!) {
        const wrong = frame.again ? this.#sequences.repeat(event) : this.#sequences.take(event, ownChangeIn(event, this.hello?.userId))
        if (wrong !== undefined) this.violations.push(wrong)
      }
    }
  }

  #wake(): void {
    for (const look of this.#looks) look()
  }

  #summary(): string {
    const counts: Record<string, number> = {}
    for (const { type } of this.frames) counts[type] = (counts[type] ?? 0) + 1
    return JSON.stringify({ ...counts, pings: this.pings, last: this.frames.slice(-2) }).slice(0, 600)
  }
}

/** Reads from an event how the membership of the device's user changes. */
type OwnChange = 'joining' | 'leaving' | undefined

function ownChangeIn({ type, data }: Event, userId: string | undefined): OwnChange {
  if (data.userId !== userId) return undefined
  if (type === 'MemberJoined') return 'joining'
  return type === 'MemberLeft' || type === 'MemberRemoved' ? 'leaving' : undefined
}

/** By conversation strictly rising, dense seqs on one connection, or a `head` where something is left out; only `again` repeats. */
class Sequences {
  readonly #last = new Map<string, number>()
  readonly #announced = new Map<string, number>()
  readonly #left = new Map<string, number>()

  lastOf(conversationId: string): number {
    return Math.max(this.#last.get(conversationId) ?? -1, this.#announced.get(conversationId) ?? -1)
  }

  /** As far as it is known here, also after one has left. */
  seenOf(conversationId: string): number {
    return Math.max(this.lastOf(conversationId), this.#left.get(conversationId) ?? -1)
  }

  head(conversationId: string, seq: number): void {
    this.#announced.set(conversationId, Math.max(seq, this.lastOf(conversationId)))
  }

  /** Gives what is wrong. Whoever has left may come again later, by its joining or after a `head`. */
  take({ conversationId, seq, head }: Event, ownChange: OwnChange): string | undefined {
    const last = this.#last.get(conversationId)
    const known = this.lastOf(conversationId)
    this.#last.set(conversationId, Math.max(seq, last ?? -1))
    const left = this.#left.get(conversationId) ?? -1
    if (last === undefined && seq <= left) return `seq ${seq} came after one had left at ${left}`
    if (ownChange === 'leaving') {
      this.#left.set(conversationId, seq)
      this.#last.delete(conversationId)
      this.#announced.delete(conversationId)
    }
    if (head < seq) return `head ${head} of seq ${seq}`
    const held = known === -1 ? left : known
    if (held === -1 || seq === held + 1 || (ownChange === 'joining' && known === -1)) return undefined
    if (last !== undefined && seq <= last) return `seq ${seq} came after ${last}`
    return seq > held ? `seq ${seq} came after ${held}: a hole without head` : undefined
  }

  repeat({ conversationId, seq }: Event): string | undefined {
    return seq <= (this.#last.get(conversationId) ?? this.#left.get(conversationId) ?? -1)
      ? undefined
      : `seq ${seq} came again, but was not sent before`
  }
}
