/** One device that sends into several conversations in turns, so that whatever else the machine does meets all of them. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Convolog } from './convolog.js'
import { Device } from './device.js'
import type { Latencies } from './figures.js'
import { Follower } from './follower.js'
import { conversationIn, kindOf, messagesIn, parseHead, parseOk, sendFrame } from './frames.js'

const SETTLE_MS_MAX = 10_000

export interface Turn {
  messages: number
  /** So many are unanswered at a time. */
  window: number
  /** Of send to ok; left out, nothing is measured. */
  latencies?: Latencies
}

interface Sending {
  conversationId: string
  follower: Follower
  /** Of the last answer. */
  head: number
  firstSeq: number
  sent: number
}

export class TurnSender {
  readonly #device: Device
  readonly #userId: string
  readonly #sendings = new Map<string, Sending>()
  #onOk: (frame: string, at: number) => void = (frame) => {
    throw new Error(`an answer that nobody waits for: ${frame.slice(0, 200)}`)
  }

  private constructor(userId: string, device: Device) {
    this.#userId = userId
    this.#device = device
    device.onText = (bytes, from, to, at) => {
      const kind = kindOf(bytes, from)
      if (kind === 'other') return
      const frame = bytes.toString('latin1', from, to)
      if (kind === 'ok') this.#onOk(frame, at)
      else this.#follow(kind, frame)
    }
  }

  /** In conversations that nobody else writes to meanwhile, and in which this user has sent nothing of this kind yet. */
  static async open(convolog: Convolog, userId: string, conversationIds: readonly string[]): Promise<TurnSender> {
    const device = await Device.open(convolog.url)
    const sender = new TurnSender(userId, device)
    for (const conversationId of conversationIds) {
      const head = await convolog.head(userId, conversationId)
      sender.#sendings.set(conversationId, { conversationId, follower: new Follower(head), head, firstSeq: head + 1, sent: 0 })
    }
    await device.hello({ token: convolog.token(userId) })
    return sender
  }

  /** The last seq of a conversation. */
  headOf(conversationId: string): number {
    return this.#sendings.get(conversationId)!.head
  }

  /** Sends as somebody who looks at the conversation does, and resolves when all is answered. */
  async turn(conversationId: string, { messages, window, latencies }: Turn): Promise<void> {
    const sending = this.#sendings.get(conversationId)!
    const sentAt: number[] = []
    const first = sending.sent
    const send = () => {
      sentAt.push(performance.now())
      this.#device.send(sendFrame(conversationId, sending.sent++))
    }
    this.#device.send(`{"type":"active","conversationId":"${conversationId}"}`)
    await new Promise<void>((resolve) => {
      this.#onOk = (frame, at) => {
        const { n, seq } = parseOk(frame)
        if (seq !== sending.head + 1 || seq !== sending.firstSeq + n) throw new Error(`message ${n} was answered with seq ${seq}`)
        sending.head = seq
        latencies?.add(at - sentAt[n - first]!)
        if (sentAt.length < messages) send()
        else if (sending.head === sending.firstSeq + sending.sent - 1) resolve()
      }
      for (let i = 0; i < Math.min(window, messages); i++) send()
    })
  }

  /** Closes when all that was sent has come back, or was announced, and the log ends where it should. */
  async close(convolog: Convolog): Promise<void> {
    for (const { conversationId, follower, head } of this.#sendings.values()) {
      for (let waitedMs = 0; follower.seen < head; waitedMs += 10) {
        if (waitedMs > SETTLE_MS_MAX) throw new Error(`of ${conversationId} only ${follower.seen} of ${head} came back`)
        await sleep(10)
      }
      const atServer = await convolog.head(this.#userId, conversationId)
      if (atServer !== head) throw new Error(`${conversationId} has its head at ${atServer} instead of ${head}`)
    }
    this.#device.close()
  }

  #follow(kind: 'events' | 'head', frame: string): void {
    const sending = this.#sendings.get(conversationIn(frame))
    if (!sending) return
    if (kind === 'head') sending.follower.takeHead(parseHead(frame))
    else
      messagesIn(frame, (seq, n) => {
        if (seq !== sending.firstSeq + n) throw new Error(`message ${n} came as seq ${seq}`)
        sending.follower.takeEvents(seq, seq)
      })
  }
}

export interface Timed {
  latencies: Latencies
  call: () => Promise<unknown>
}

/** Measures calls in turns, each as often first as last; `between` the rounds what is done is not measured. */
export async function inTurns(rounds: number, calls: readonly Timed[], between: () => Promise<void> = async () => {}): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const { latencies, call } of round % 2 === 0 ? calls : calls.toReversed()) {
      const startedAt = performance.now()
      await call()
      latencies.add(performance.now() - startedAt)
    }
    await between()
  }
}
