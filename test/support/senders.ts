import { setTimeout as sleep } from 'node:timers/promises'
import type { Device } from './device.js'
import { type User, text } from './world.js'

const RETRY_MS = 20

/** Why something was not accepted: a code of the table, or that there was no answer at all. */
export type Refused = { code: string; temporary: boolean } | 'no answer'

export interface SenderOptions {
  user: User
  conversationId: string
  /** How many, at most. */
  messages: number
  /** Over a WebSocket. */
  atOnce: number
  pauseMs?: number
}

/**
 * Sends its messages in their order and never gives up: where the line breaks, or the answer is that it should be tried again,
 * it sends the same again.
 */
export abstract class Sender {
  readonly user: User
  readonly conversationId: string
  /** What it has begun to send, in order. */
  readonly ids: string[] = []
  /** What was acknowledged: id → seq. */
  readonly acknowledged = new Map<string, number>()
  readonly refused: Refused[] = []
  protected readonly options: SenderOptions
  #isFinishing = false

  constructor(options: SenderOptions) {
    this.options = options
    this.user = options.user
    this.conversationId = options.conversationId
  }

  /** Sends until it has sent all, or is told to finish; ends when everything is acknowledged. */
  async run(): Promise<void> {
    const { messages, pauseMs } = this.options
    while (this.ids.length < messages && !this.#isFinishing) {
      await this.sendNext(messages - this.ids.length)
      if (pauseMs !== undefined) await sleep(pauseMs)
    }
  }

  /** Begins nothing new. */
  finish(): void {
    this.#isFinishing = true
  }

  /** Sends one or some, at most `left`; ends when they are acknowledged. */
  protected abstract sendNext(left: number): Promise<void>

  protected newId(): string {
    const id = `${this.user.id}:${this.ids.length}`
    this.ids.push(id)
    return id
  }

  protected messageOf(id: string) {
    return { clientMessageId: id, content: text(`this is ${id}`) }
  }
}

/** One after the other over REST. */
export class RestSender extends Sender {
  protected async sendNext(): Promise<void> {
    const id = this.newId()
    while (!this.acknowledged.has(id)) await this.#try(id)
  }

  async #try(id: string): Promise<void> {
    const answer = await this.user
      .call<{ seq: number; code: string; temporary: boolean }>(
        'POST',
        `/v1/conversations/${this.conversationId}/messages`,
        this.messageOf(id),
      )
      .catch(() => undefined)
    if (answer && answer.status < 300) return void this.acknowledged.set(id, answer.body.seq)
    this.refused.push(answer ? { code: answer.body.code, temporary: answer.body.temporary } : 'no answer')
    await sleep(RETRY_MS)
  }
}

/** Over a WebSocket, some at once; all that were not acknowledged are sent again in their order. */
export class SocketSender extends Sender {
  #device: Device | undefined

  protected async sendNext(left: number): Promise<void> {
    let waiting = Array.from({ length: Math.min(left, this.options.atOnce) }, () => this.newId())
    while (waiting.length > 0) {
      this.#device ??= await this.user.connect().catch(() => undefined)
      if (this.#device) await this.#sendSome(this.#device, waiting)
      else await sleep(RETRY_MS)
      while (waiting.length > 0 && this.acknowledged.has(waiting[0]!)) waiting = waiting.slice(1)
    }
  }

  async #sendSome(device: Device, ids: readonly string[]): Promise<void> {
    const answers = await Promise.allSettled(
      ids.map((id) => device.request('message.send', { conversationId: this.conversationId, ...this.messageOf(id) })),
    )
    answers.forEach((answer, index) => {
      if (answer.status === 'rejected') this.refused.push('no answer')
      else if (answer.value.type === 'ok') this.acknowledged.set(ids[index]!, answer.value.seq!)
      else this.refused.push({ code: answer.value.code!, temporary: answer.value.temporary! })
    })
    if (answers.every(({ status }) => status === 'fulfilled')) return
    device.terminate()
    this.#device = undefined
  }
}
