/** The kinds of traffic in whose middle a server is stopped. */
import { type Socket, connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { APP_SECRET, tokenOf } from '../convolog.js'
import { HttpClient } from '../hostile/http.js'

/** A place that no log of this bench comes to. */
const FAR_PLACE = '9999999999999999'
const UPLOAD_BYTES = 200_000
const UPLOAD_STEP_BYTES = 1_000
const SENDERS = 8
const IN_FLIGHT = 8
const STORM_SOCKETS = 200
const SLOW_SOCKETS = 10

export interface TrafficOptions {
  url: string
  conversationId: string
  /** Before the first message. */
  firstPosition: string
  /** Tells messages of this life from those of others. */
  life: number
}

export type TrafficKind = keyof typeof kindsOfTraffic

/** All clients of one life, and what they were told. */
export class Traffic {
  /** By client message id, the seq that was acknowledged. */
  readonly acknowledged = new Map<string, number>()
  readonly options: TrafficOptions
  readonly http: HttpClient
  readonly #ends: (() => void)[] = []
  isOver = false

  constructor(options: TrafficOptions) {
    this.options = options
    this.http = new HttpClient(options.url, { connections: 16 })
  }

  begin(kind: TrafficKind): void {
    kindsOfTraffic[kind](this)
  }

  end(): void {
    this.isOver = true
    this.http.close()
    for (const end of this.#ends.splice(0)) end()
  }

  /** Again and again, as long as there is somebody to talk to. */
  async repeat(work: () => Promise<unknown>): Promise<void> {
    while (!this.isOver) await work().catch(() => sleep(50))
  }

  ask(method: string, path: string, body?: object) {
    return this.http.ask(APP_SECRET, method, path, body, { 'on-behalf-of': 'sender' })
  }

  /** A message over REST. */
  async post(clientMessageId: string): Promise<string | undefined> {
    const { conversationId } = this.options
    const message = { clientMessageId, content: { type: 'text', text: 'x' } }
    const { code, text } = await this.ask('POST', `/conversations/${conversationId}/messages`, message)
    if (code !== '2xx') {
      await sleep(50)
      return undefined
    }
    const { seq, position } = JSON.parse(text) as { seq: number; position: string }
    this.acknowledged.set(clientMessageId, seq)
    return position
  }

  /** A socket that has sent its hello; `onFrame` gets what comes. */
  socket(hello: object | undefined, onFrame: (frame: Frame, ws: WebSocket) => void = () => {}): WebSocket {
    const ws = new WebSocket(`${this.options.url.replace('http', 'ws')}/v1/ws`, { perMessageDeflate: false })
    this.#ends.push(() => ws.terminate())
    ws.on('error', () => {})
    ws.on('open', () => hello && ws.send(JSON.stringify({ type: 'hello', ref: 0, token: tokenOf('sender'), ...hello })))
    ws.on('message', (data: Buffer) => onFrame(JSON.parse(data.toString()) as Frame, ws))
    return ws
  }

  raw(firstBytes: string): Socket {
    const { hostname, port } = new URL(this.options.url)
    const socket = connect({ host: hostname, port: Number(port) })
    this.#ends.push(() => socket.destroy())
    socket.on('error', () => {})
    socket.write(firstBytes)
    return socket
  }
}

interface Frame {
  type: string
  ref?: number
  seq?: number
}

export const kindsOfTraffic = {
  sends: sendMuch,
  resumes: resumeAgain,
  'unread answers': leaveAnswersUnread,
  'keep-alive': (traffic: Traffic) => void traffic.repeat(() => traffic.ask('GET', '/inbox')),
  'half a head': (traffic: Traffic) => void traffic.raw('GET / HTTP/1.1\r\nHost: x\r\n'),
  'waiting reads': waitForPositions,
  'slow sockets': openSlowSockets,
  uploads: uploadSlowly,
  'hello storm': storm,
}

function sendMuch(traffic: Traffic): void {
  const { conversationId, life } = traffic.options
  for (let sender = 0; sender < SENDERS; sender++) {
    let ref = 0
    const send = (ws: WebSocket) => {
      ref += 1
      const message = { conversationId, clientMessageId: `s${life}-${sender}-${ref}`, content: { type: 'text', text: 'x' } }
      ws.send(JSON.stringify({ type: 'message.send', ref, ...message }))
    }
    traffic.socket({ deviceId: `sender-${sender}` }, ({ type, ref: answered = -1, seq }, ws) => {
      if (type !== 'ok') return
      if (answered > 0) traffic.acknowledged.set(`s${life}-${sender}-${answered}`, seq!)
      for (let n = 0; n < (answered === 0 ? IN_FLIGHT : 1); n++) send(ws)
    })
  }
}

function resumeAgain(traffic: Traffic): void {
  const { firstPosition: position } = traffic.options
  for (let device = 0; device < SENDERS; device++)
    void traffic.repeat(
      () =>
        new Promise<void>((resolve) => {
          const ws = traffic.socket({ deviceId: `resumes-${device}`, position }, ({ ref }) => ref === 0 && ws.terminate())
          ws.once('close', () => setTimeout(resolve, 10))
        }),
    )
}

function leaveAnswersUnread(traffic: Traffic): void {
  const { conversationId } = traffic.options
  for (let n = 0; n < 20; n++)
    traffic
      .raw(
        `GET /v1/conversations/${conversationId}/events?limit=200 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${tokenOf('sender')}\r\n\r\n`,
      )
      .pause()
}

/** Reads that wait for what was written a moment ago, and such that wait for what never comes. */
function waitForPositions(traffic: Traffic): void {
  let n = 0
  for (let reader = 0; reader < SENDERS; reader++) {
    void traffic.repeat(async () => traffic.ask('GET', `/inbox?minPosition=${await traffic.post(`w${traffic.options.life}-${n++}`)}`))
    void traffic.repeat(async () => {
      const position = (await traffic.post(`f${traffic.options.life}-${n++}`)) ?? ''
      // With what a position carries behind its place, so that it is one of this log.
      await traffic.ask('GET', `/inbox?minPosition=${FAR_PLACE}${position.slice(FAR_PLACE.length)}`)
    })
  }
}

/** They read neither events nor the close frame. */
function openSlowSockets(traffic: Traffic): void {
  for (let device = 0; device < SLOW_SOCKETS; device++) {
    const ws = traffic.socket({ deviceId: `slow-${device}`, position: traffic.options.firstPosition })
    ws.once('open', () => ws.pause())
  }
}

function uploadSlowly(traffic: Traffic): void {
  for (let n = 0; n < 10; n++) {
    const head = `POST /v1/conversations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${tokenOf('sender')}\r\nContent-Type: application/json\r\nContent-Length: ${UPLOAD_BYTES}\r\n\r\n`
    const socket = traffic.raw(head)
    void traffic.repeat(async () => {
      socket.write(' '.repeat(UPLOAD_STEP_BYTES))
      await sleep(200)
    })
  }
}

function storm(traffic: Traffic): void {
  for (let n = 0; n < STORM_SOCKETS; n++) traffic.socket(n % 2 === 0 ? undefined : { token: 'none' })
}
