import { expect } from 'vitest'
import type { Event } from './device.js'
import { ForgetfulDevice } from './forgetful-device.js'
import { type Refused, RestSender, type Sender, SocketSender } from './senders.js'
import { type Conversation, type User, type World, eventually } from './world.js'

export interface SceneOptions {
  /** Each sends, and listens on a device of its own beside what it sends with. */
  users: readonly [User, ...User[]]
  /** What each sends at most. */
  messages: number
  /** Of those that send over a WebSocket. */
  atOnce: number
  /** Between one message, or some at once, and the next. */
  pauseMs?: number
}

/** One conversation into which some send over REST and some over WebSocket, and to which all of them listen, whatever breaks. */
export class Scene {
  readonly conversation: Conversation
  readonly devices: readonly ForgetfulDevice[]
  readonly senders: readonly Sender[]
  readonly #resting = new AbortController()
  readonly #listening: Promise<void[]>
  readonly #sending: Promise<void[]>

  private constructor(conversation: Conversation, devices: readonly ForgetfulDevice[], senders: readonly Sender[]) {
    this.conversation = conversation
    this.devices = devices
    this.senders = senders
    this.#listening = Promise.all(devices.map((device) => device.stayConnected(this.#resting.signal)))
    this.#sending = Promise.all(senders.map((sender) => sender.run()))
  }

  static async begin({ users, ...sending }: SceneOptions): Promise<Scene> {
    const [first, ...others] = users
    const conversation = await first.group(others)
    const senders = users.map((user, n) => {
      const options = { user, conversationId: conversation.conversationId, ...sending }
      return n % 2 === 0 ? new RestSender(options) : new SocketSender(options)
    })
    const devices = users.map((user) => new ForgetfulDevice(user))
    for (const device of devices) await device.connect()
    return new Scene(conversation, devices, senders)
  }

  get acknowledged(): number {
    return this.senders.reduce((sum, sender) => sum + sender.acknowledged.size, 0)
  }

  get refusals(): Refused[] {
    return this.senders.flatMap(({ refused }) => refused)
  }

  /** Waits until so many more are acknowledged. */
  async more(count: number, patienceMs = 60_000): Promise<void> {
    const enough = this.acknowledged + count
    await eventually(async () => this.acknowledged >= enough, `${count} more messages to be acknowledged`, patienceMs)
  }

  /** No sender begins anything new. */
  finish(): void {
    for (const sender of this.senders) sender.finish()
  }

  /** All have sent all, and every device has it. */
  async end(): Promise<void> {
    await this.#sending
    const { conversationId } = this.conversation
    const last = this.acknowledged
    for (const device of this.devices)
      await eventually(async () => device.events(conversationId).has(last), `all to be on the device of ${device.user.id}`, 30_000)
    this.#resting.abort()
    await this.#listening
  }

  /** One dense sequence, each message once and in its sender's order, everything acknowledged at its place, and every device has the very same. */
  async judge(worlds: readonly World[]): Promise<void> {
    const events = await this.senders[0]!.user.events(this.conversation)
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, n) => n))
    const messages = events.slice(1)
    expect(messages.map(({ data }) => data.ordinal)).toEqual(messages.map((_, n) => n + 1))
    for (const { user, ids, acknowledged } of this.senders) {
      const own = messages.filter(({ actor }) => actor.userId === user.id)
      expect(own.map(({ data }) => data.clientMessageId)).toEqual(ids)
      expect(Object.fromEntries(acknowledged)).toEqual(Object.fromEntries(own.map(({ data, seq }) => [data.clientMessageId, seq])))
    }
    const withoutHead = ({ head: _, ...event }: Event) => event
    for (const device of this.devices) {
      const had = [...device.events(this.conversation.conversationId).values()].sort((one, other) => one.seq - other.seq).map(withoutHead)
      expect(had).toEqual(messages.map(withoutHead))
      expect(device.notRecovered).toBe(0)
    }
    expect(worlds.flatMap((world) => world.violations())).toEqual([])
  }
}
