import { setTimeout as sleep } from 'node:timers/promises'
import type { Device } from './device.js'
import { type User, text } from './world.js'

const RETRY_MS = 20

/** Why something was not accepted: a code of the table, or that there was no answer at all. */
export type Refused = { code: string; temporary: boolean } | 'no answer'

/**
 * Sends its messages in their order and never gives up: where the line breaks, or the answer is that it should be tried again,
 * it sends the same again.
 */
export abstract class Sender {
  readonly user: User
  readonly conversationId: string
  readonly ids: readonly string[]
  /** What was acknowledged: id → seq. */
  readonly acknowledged = new Map<string, number>()
  readonly refused: Refused[] = []

  constructor(user: User, conversationId: string, count: number) {
    this.user = user
    this.conversationId = conversationId
    this.ids = Array.from({ length: count }, (_, n) => `${user.id}:${n}`)
  }

  abstract run(): Promise<void>

  protected messageOf(id: string) {
    return { clientMessageId: id, content: text(`this is ${id}`) }
  }
}

/** One after the other over REST. */
export class RestSender extends Sender {
  async run(): Promise<void> {
    for (const id of this.ids) while (!this.acknowledged.has(id)) await this.#try(id)
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
  readonly #atOnce: number
  #device: Device | undefined

  constructor(user: User, conversationId: string, count: number, atOnce: number) {
    super(user, conversationId, count)
    this.#atOnce = atOnce
  }

  async run(): Promise<void> {
    for (let next = 0; next < this.ids.length; ) {
      this.#device ??= await this.user.connect().catch(() => undefined)
      if (this.#device) await this.#sendSome(this.#device, this.ids.slice(next, next + this.#atOnce))
      else await sleep(RETRY_MS)
      while (next < this.ids.length && this.acknowledged.has(this.ids[next]!)) next += 1
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
