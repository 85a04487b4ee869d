/** `convolog chat ME OTHER`: a direct conversation in the terminal, to try a server with; it shows how a client resumes. */
import { randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { StartError } from '../start-error.js'

const RECONNECT_MS_MAX = 5_000
const SEND_AGAIN_MS = 500
const PERMANENT_CLOSE_MIN = 4_500

export interface ChatOptions {
  url: string
  appSecret: string
  userId: string
  otherUserId: string
  input: NodeJS.ReadableStream
  print: (line: string) => void
}

interface Event {
  conversationId: string
  seq: number
  type: string
  actor: { userId?: string }
  data: { content?: { text?: string } | null }
}

interface Frame {
  type: string
  ref?: number
  temporary?: boolean
  message?: string
  position?: string
  resume?: string
  events?: Event[]
}

/** Prints what is said, and says each line of the input. Ends with the input, when all lines are acknowledged. @throws {StartError} */
export async function chat({ url, appSecret, userId, otherUserId, input, print }: ChatOptions): Promise<void> {
  const token = async () => (await post<{ token: string }>(`${url}/v1/tokens`, appSecret, { userId, deviceId: 'terminal' })).token
  const { conversationId } = await post<{ conversationId: string }>(`${url}/v1/conversations`, await token(), {
    type: 'direct',
    memberIds: [otherUserId],
  })
  print(`You are ${userId}, and this is your conversation with ${otherUserId}. Type a line to send it; Ctrl-D ends.`)
  const session = new ChatSession(`${url.replace(/^http/, 'ws')}/v1/ws`, token, conversationId, (event) => print(lineOf(event, userId)))
  const running = session.run()
  for await (const line of createInterface({ input })) if (line !== '') session.say(line)
  await session.allSaid()
  session.end()
  await running
}

/** One device: connects, resumes from its position, and sends again what was not acknowledged. */
class ChatSession {
  readonly #url: string
  readonly #token: () => Promise<string>
  readonly #conversationId: string
  readonly #onMessage: (event: Event) => void
  /** What was not acknowledged yet, by ref: sent again with the same id, it is the same message. */
  readonly #unsaid = new Map<number, object>()
  #ws: WebSocket | undefined
  #isReady = false
  #position: string | undefined
  #lastSeq = -1
  #ref = 1
  #isEnding = false
  #settled: (() => void) | undefined

  constructor(url: string, token: () => Promise<string>, conversationId: string, onMessage: (event: Event) => void) {
    this.#url = url
    this.#token = token
    this.#conversationId = conversationId
    this.#onMessage = onMessage
  }

  async run(): Promise<void> {
    for (let tries = 0; !this.#isEnding; tries += 1) {
      const code = await this.#connect().catch(() => 1006)
      if (code >= PERMANENT_CLOSE_MIN) throw new StartError(`The server closed the connection for good (${code}).`)
      if (!this.#isEnding) await delay(Math.random() * Math.min(RECONNECT_MS_MAX, 100 * 2 ** tries))
    }
  }

  say(text: string): void {
    const frame = {
      type: 'message.send',
      ref: ++this.#ref,
      conversationId: this.#conversationId,
      clientMessageId: randomUUID(),
      content: { type: 'text', text },
    }
    this.#unsaid.set(frame.ref, frame)
    if (this.#isReady) this.#send(frame)
  }

  allSaid(): Promise<void> {
    if (this.#unsaid.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#settled = resolve
    })
  }

  end(): void {
    this.#isEnding = true
    this.#ws?.close()
  }

  async #connect(): Promise<number> {
    const token = await this.#token()
    return new Promise((resolve) => {
      const ws = new WebSocket(this.#url)
      this.#ws = ws
      ws.on('open', () =>
        this.#send({ type: 'hello', ref: 1, token, ...(this.#position === undefined ? {} : { position: this.#position }) }),
      )
      ws.on('message', (data: Buffer) => this.#take(JSON.parse(data.toString()) as Frame))
      ws.on('error', () => {})
      ws.on('close', (code) => {
        this.#isReady = false
        resolve(code)
      })
    })
  }

  #take(frame: Frame): void {
    if (frame.type === 'ok' && frame.ref === 1) this.#welcome(frame)
    else if (frame.type === 'ok' || frame.type === 'error') this.#answered(frame)
    else if (frame.type === 'events') this.#takeEvents(frame)
  }

  #welcome({ position }: Frame): void {
    this.#position ??= position
    this.#isReady = true
    for (const frame of this.#unsaid.values()) this.#send(frame)
  }

  #answered({ type, ref = 0, temporary, message }: Frame): void {
    if (type === 'error' && temporary) return void setTimeout(() => this.#send(this.#unsaid.get(ref)), SEND_AGAIN_MS)
    if (type === 'error') process.stderr.write(`${message}\n`)
    this.#unsaid.delete(ref)
    if (this.#unsaid.size === 0) this.#settled?.()
  }

  #takeEvents({ events = [], resume }: Frame): void {
    for (const event of events) {
      // What a resume repeats is dropped by its seq.
      if (event.conversationId !== this.#conversationId || event.seq <= this.#lastSeq) continue
      this.#lastSeq = event.seq
      if (event.type === 'MessageSent') this.#onMessage(event)
    }
    this.#position = resume
  }

  #send(frame: object | undefined): void {
    if (frame && this.#ws?.readyState === WebSocket.OPEN) this.#ws.send(JSON.stringify(frame))
  }
}

const lineOf = ({ seq, actor, data }: Event, userId: string) =>
  `${String(seq).padStart(4)}  ${actor.userId === userId ? 'you' : actor.userId}: ${data.content?.text ?? '…'}`

async function post<Answer>(url: string, bearer: string, body: object): Promise<Answer> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }).catch((error: Error) => {
    throw new StartError(`No server answers at ${new URL(url).origin} (${error.message}): start one with npm start.`)
  })
  const answer = (await response.json()) as Answer & { detail?: string }
  if (!response.ok) throw new StartError(`${answer.detail ?? response.statusText}`)
  return answer
}
