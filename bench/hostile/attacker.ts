/** One hostile client: a valid token, and no manners. It keeps to its own limits and to the throttle, and asks on when refused. */
import { type Socket, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { type Answer, HttpClient } from './http.js'
import type { Hostile, Scene } from './messages.js'
import type { Throttle } from './throttle.js'

const REQUESTS_PER_SECOND = 1_000
const FRAMES_PER_SECOND = 60
const FRAMES_AT_ONCE_MAX = 300
const ANSWER_MS_MAX = 30_000

export interface AttackerOptions {
  client: Hostile
  scene: Scene
  throttle: Throttle
  count: (code: string) => void
}

export class Attacker {
  readonly scene: Scene
  readonly client: Hostile
  readonly count: (code: string) => void
  readonly #throttle: Throttle
  readonly #http: HttpClient
  readonly #requests = new Budget(REQUESTS_PER_SECOND, REQUESTS_PER_SECOND)
  /** What a kind remembers from one round to the next. */
  readonly memory = new Map<string, unknown>()

  constructor({ client, scene, throttle, count }: AttackerOptions) {
    this.scene = scene
    this.client = client
    this.count = count
    this.#throttle = throttle
    this.#http = new HttpClient(scene.url, { connections: 4, localAddress: client.localAddress })
  }

  /** A request, whose answer is counted. */
  async rest(method: string, path: string, body?: object, headers?: Record<string, string>): Promise<Answer> {
    await this.turn(this.#requests)
    const answer = await this.#http.ask(this.client.token, method, path, body, headers)
    this.count(answer.code)
    return answer
  }

  /** A GET of whose answer no more than the beginning is read, for so long. */
  async restUnread(path: string, holdMs: number): Promise<void> {
    await this.turn(this.#requests)
    const socket = this.#socket()
    const head = `GET /v1${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${this.client.token}\r\n\r\n`
    const firstBytes = new Promise<string>((resolve) => {
      socket.once('data', (bytes: Buffer) => {
        socket.pause()
        resolve(codeOfHead(bytes.toString('latin1', 0, 2_000)))
      })
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
      socket.once('close', () => resolve('closed'))
    })
    socket.write(head)
    this.count(await Promise.race([firstBytes, sleep(ANSWER_MS_MAX, 'no answer', { ref: false })]))
    await sleep(holdMs)
    socket.destroy()
  }

  /** A socket that has not said hello. */
  async connect(): Promise<HostileSocket> {
    await this.turn()
    const { client, scene, count } = this
    const ws = new WebSocket(`${scene.url.replace('http', 'ws')}/v1/ws`, {
      perMessageDeflate: false,
      localAddress: client.localAddress,
      handshakeTimeout: ANSWER_MS_MAX,
    })
    const socket = new HostileSocket(ws, this)
    const failure = await new Promise<string | undefined>((resolve) => {
      ws.once('open', () => resolve(undefined))
      ws.once('unexpected-response', (_request, answer) => {
        resolve(`upgrade ${answer.statusCode}`)
        ws.terminate()
      })
      ws.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    })
    if (failure === undefined) return socket
    count(failure)
    throw new Refused(failure)
  }

  /** A socket that was welcomed. */
  async welcome(hello: { deviceId?: string; position?: string } = {}): Promise<HostileSocket> {
    const socket = await this.connect()
    const answer = await socket.askAtOnce({ type: 'hello', token: this.client.token, ...hello })
    if (answer.type === 'ok') return socket
    socket.end()
    throw new Refused(answer.code ?? 'closed')
  }

  /** Waits for the throttle and for the own budget. */
  async turn(budget?: Budget): Promise<void> {
    await budget?.take()
    await this.#throttle.turn()
  }

  #socket(): Socket {
    const { hostname, port } = new URL(this.scene.url)
    return connect({ host: hostname, port: Number(port), localAddress: this.client.localAddress })
  }
}

/** It has been counted already; the round is over. */
class Refused extends Error {}

interface SocketAnswer {
  type: string
  ref?: number
  code?: string
  seq?: number
  position?: string
}

export class HostileSocket {
  readonly #ws: WebSocket
  readonly #attacker: Attacker
  readonly #frames = new Budget(FRAMES_PER_SECOND, FRAMES_AT_ONCE_MAX)
  readonly #waiting = new Map<number, (answer: SocketAnswer) => void>()
  readonly closed: Promise<void>
  #ref = 0

  constructor(ws: WebSocket, attacker: Attacker) {
    this.#ws = ws
    this.#attacker = attacker
    ws.on('message', (data: Buffer) => this.#take(data))
    this.closed = new Promise((resolve) =>
      ws.once('close', (code) => {
        // 1006: this side ended it, or the server is gone.
        if (code !== 1006) attacker.count(`closed with ${code}`)
        for (const answer of this.#waiting.values()) answer({ type: 'closed' })
        this.#waiting.clear()
        resolve()
      }),
    )
  }

  get isOpen(): boolean {
    return this.#ws.readyState === WebSocket.OPEN
  }

  /** A frame whose answer is counted. */
  async ask(frame: object): Promise<SocketAnswer> {
    await this.#attacker.turn(this.#frames)
    return this.askAtOnce(frame)
  }

  /** Without waiting for the throttle: a hello comes in time, and connecting has waited for it. */
  async askAtOnce(frame: object): Promise<SocketAnswer> {
    const ref = (this.#ref += 1)
    if (!this.isOpen) return { type: 'closed' }
    const answer = new Promise<SocketAnswer>((resolve) => this.#waiting.set(ref, resolve))
    this.#ws.send(JSON.stringify({ ...frame, ref }))
    const got = await Promise.race([answer, sleep<SocketAnswer>(ANSWER_MS_MAX, { type: 'no answer' }, { ref: false })])
    this.#waiting.delete(ref)
    this.#attacker.count(got.type === 'ok' ? '2xx' : (got.code ?? got.type))
    return got
  }

  /** A frame whose answer nobody reads. */
  async say(frame: object): Promise<void> {
    await this.#attacker.turn(this.#frames)
    if (!this.isOpen) return
    this.#ws.send(JSON.stringify({ ...frame, ref: (this.#ref += 1) }))
    this.#attacker.count('not read')
  }

  /** Reads nothing any more. */
  pause(): void {
    if (this.isOpen) this.#ws.pause()
  }

  end(): void {
    this.#ws.terminate()
  }

  #take(data: Buffer): void {
    if (this.#waiting.size === 0) return
    const text = data.toString()
    if (!/^\{"type":"(?:ok|error)"/.test(text)) return
    const answer = JSON.parse(text) as SocketAnswer
    const resolve = this.#waiting.get(answer.ref ?? -1)
    this.#waiting.delete(answer.ref ?? -1)
    resolve?.(answer)
  }
}

/** A token bucket of the client's own: what its limits allow, and no more. */
class Budget {
  readonly #perSecond: number
  readonly #burst: number
  #left: number
  #filledAt = performance.now()

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#left = burst
  }

  async take(): Promise<void> {
    const now = performance.now()
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#filledAt) * this.#perSecond) / 1_000)
    this.#filledAt = now
    this.#left -= 1
    if (this.#left < 0) await sleep((-this.#left * 1_000) / this.#perSecond)
  }
}

/** Of the beginning of an answer: what its status says. */
function codeOfHead(head: string): string {
  const [, status = ''] = /^HTTP\/1\.1 (\d+)/.exec(head) ?? []
  const [, code = status] = /"code":"(\w+)"/.exec(head) ?? []
  return status.startsWith('2') ? 'not read' : code
}
