/** A client of the live protocol, small and complete: it resumes, fills gaps, acknowledges, resends, and knows when to stop. */

export interface LiveEvent {
  conversationId: string
  seq: number
  type: string
  data: Record<string, unknown>
  head: number
}

/** What browsers, Node.js 22 and the package `ws` have as WebSocket. */
interface Socket {
  onopen: unknown
  onmessage: unknown
  onclose: unknown
  send(text: string): void
  close(code?: number): void
}

export interface LiveClientOptions {
  /** wss://… with the path /v1/ws */
  url: string
  deviceId: string
  /** Asked for before every connection, so that an expired one is replaced. */
  getToken: () => Promise<string>
  /** Each fact once, in the order of its conversation. */
  onEvent: (event: LiveEvent) => void
  /** Too much was missed: read GET /v1/inbox, and of each open conversation GET …/messages. Live from here on. */
  onReset: () => void
  /** The server has said: do not connect again. */
  onRefused: (closeCode: number) => void
  WebSocket: new (url: string) => Socket
}

interface Frame {
  type: string
  ref?: number
  events?: LiveEvent[]
  resume?: string
  position?: string
  recovered?: boolean
  conversationId?: string
  seq?: number
  temporary?: boolean
  reconnectAfterMs?: number
}

interface Waiting {
  resolve: (answer: Frame) => void
  reject: (error: unknown) => void
}

const RETRY_MS = 500
const RETRY_MS_MAX = 30_000

/** The server's `error`: `code` is what programs go by, `temporary` says to send the very same again. */
export class LiveError extends Error {
  readonly code: string
  readonly temporary: boolean

  constructor({ code, message, temporary }: { code?: string; message?: string; temporary?: boolean }) {
    super(message)
    this.code = code ?? ''
    this.temporary = temporary ?? false
  }
}

export class LiveClient {
  readonly #options: LiveClientOptions
  /** By conversation, the last seq that is here, and the last that is known to be there. */
  readonly #have = new Map<string, number>()
  readonly #known = new Map<string, number>()
  readonly #pulling = new Set<string>()
  readonly #waiting = new Map<number, Waiting>()
  #socket: Socket | undefined
  /** Whether hello was answered, and who waits for it. */
  #isReady = false
  #whenReady: (() => void)[] = []
  #resume: string | undefined
  #ref = 0
  #failures = 0
  #reconnectAfterMs: number | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #isStopped = false

  constructor(options: LiveClientOptions) {
    this.#options = options
    this.#connect()
  }

  /** Sends a text. It comes back as an event too; resolves once the server has it for good. */
  async send(conversationId: string, text: string): Promise<Frame> {
    // One id for all attempts: a resend of any age is the same message.
    const message = { conversationId, clientMessageId: crypto.randomUUID(), content: { type: 'text', text } }
    for (;;) {
      if (!this.#isReady) await new Promise<void>((resolve) => this.#whenReady.push(resolve))
      try {
        return await this.#request('message.send', message)
      } catch (error) {
        if (!(error instanceof LiveError) || !error.temporary || this.#isStopped) throw error
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      }
    }
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
    this.#socket?.close(1000)
  }

  #connect(): void {
    const socket = new this.#options.WebSocket(this.#options.url)
    this.#socket = socket
    socket.onopen = () => this.#hello().catch(() => socket.close())
    socket.onmessage = ({ data }: { data: unknown }) => this.#receive(JSON.parse(String(data)) as Frame)
    socket.onclose = ({ code }: { code: number }) => this.#closed(code)
  }

  async #hello(): Promise<void> {
    const { getToken, deviceId, onReset } = this.#options
    const hello = { token: await getToken(), deviceId, acks: true, ...(this.#resume === undefined ? {} : { position: this.#resume }) }
    const { position, recovered } = await this.#request('hello', hello)
    this.#failures = 0
    if (!recovered) {
      this.#have.clear()
      this.#known.clear()
      onReset()
    }
    // From here until the first events or head say more.
    if (!recovered || this.#resume === undefined) this.#resume = position
    this.#isReady = true
    for (const resolve of this.#whenReady.splice(0)) resolve()
    for (const conversationId of this.#known.keys()) void this.#pull(conversationId)
  }

  #receive(frame: Frame): void {
    if (frame.type === 'ok' || frame.type === 'error') {
      const waiting = this.#waiting.get(frame.ref ?? -1)
      this.#waiting.delete(frame.ref ?? -1)
      if (frame.type === 'ok') waiting?.resolve(frame)
      else waiting?.reject(new LiveError(frame))
    } else if (frame.type === 'events') {
      for (const event of frame.events ?? []) this.#take(event)
      for (const conversationId of new Set(frame.events?.map((event) => event.conversationId))) this.#acknowledge(conversationId)
      this.#resume = frame.resume
    } else if (frame.type === 'head') {
      this.#learn(frame.conversationId!, frame.seq!)
      this.#resume = frame.resume
    } else if (frame.type === 'goaway') {
      this.#reconnectAfterMs = frame.reconnectAfterMs
    }
  }

  /** Hands on what comes next, drops what is here already, and asks for what lies between. */
  #take(event: LiveEvent): void {
    const { conversationId, seq } = event
    const have = this.#have.get(conversationId)
    if (have === undefined || seq === have + 1) {
      this.#have.set(conversationId, seq)
      this.#options.onEvent(event)
    } else if (seq > have) this.#learn(conversationId, seq)
  }

  /** There is more, up to here. A conversation that is new here begins with its newest fact: what was before is read over REST. */
  #learn(conversationId: string, seq: number): void {
    if (!this.#have.has(conversationId)) this.#have.set(conversationId, seq - 1)
    this.#known.set(conversationId, Math.max(seq, this.#known.get(conversationId) ?? -1))
    void this.#pull(conversationId)
  }

  async #pull(conversationId: string): Promise<void> {
    if (this.#pulling.has(conversationId)) return
    this.#pulling.add(conversationId)
    try {
      while ((this.#have.get(conversationId) ?? -1) < (this.#known.get(conversationId) ?? -1)) {
        const { events = [] } = await this.#request('events.get', {
          conversationId,
          after: this.#have.get(conversationId) ?? -1,
          limit: 200,
        })
        for (const event of events) this.#take(event)
        this.#acknowledge(conversationId)
        if (events.length === 0) break
      }
      this.#known.delete(conversationId)
    } catch (error) {
      // A broken connection: the next hello pulls on. A refusal: one is no member any more.
      if (error instanceof LiveError && !error.temporary) this.#known.delete(conversationId)
    } finally {
      this.#pulling.delete(conversationId)
    }
  }

  /** All of the conversation up to what is here has arrived. */
  #acknowledge(conversationId: string): void {
    if (this.#isReady) this.#socket?.send(JSON.stringify({ type: 'ack', conversationId, seq: this.#have.get(conversationId) }))
  }

  #request(type: string, fields: object): Promise<Frame> {
    const ref = (this.#ref += 1)
    return new Promise((resolve, reject) => {
      this.#waiting.set(ref, { resolve, reject })
      this.#socket?.send(JSON.stringify({ type, ref, ...fields }))
    })
  }

  #closed(closeCode: number): void {
    // Whether what is unanswered was done, nobody knows: the same again will tell.
    const unknown = new LiveError({ code: 'unavailable', message: 'The connection broke.', temporary: true })
    for (const { reject } of this.#waiting.values()) reject(unknown)
    this.#waiting.clear()
    this.#isReady = false
    if (this.#isStopped) return
    if (closeCode >= 4_500 && closeCode < 5_000) return this.#options.onRefused(closeCode)
    const backoffMs = Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** this.#failures) * (0.5 + Math.random() / 2)
    this.#failures += 1
    this.#timer = setTimeout(() => this.#connect(), this.#reconnectAfterMs ?? backoffMs)
    this.#reconnectAfterMs = undefined
  }
}
