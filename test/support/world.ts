import { createHmac, randomBytes } from 'node:crypto'
import { Device, type DeviceOptions, type Event, type Frame, type Hello } from './device.js'
import { type Answer, type CallOptions, call, succeed } from './rest.js'

export const APP_SECRET = 'test-app-secret-0123456789'
export const JWT_SECRET = 'test-jwt-secret-0123456789'

let last = 0
/** A name that nobody else has in this run. */
export const unique = (prefix: string) => `${prefix}-${(last += 1)}-${randomBytes(3).toString('hex')}`

/** HS256, with a secret that the server knows unless another is given. */
export function sign(claims: Record<string, unknown>, secret = JWT_SECRET, header: object = { alg: 'HS256', typ: 'JWT' }): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part(header)}.${part({ iat: Date.now() / 1_000, exp: Math.floor(Date.now() / 1_000) + 3_600, ...claims })}`
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`
}

export interface Sent {
  conversationId: string
  seq: number
  ordinal: number
  position: string
  sentAt: string
  duplicate?: boolean
}

export interface Conversation {
  conversationId: string
  head: number
  position: string
}

export const text = (value: string) => ({ type: 'text', text: value })

/** Somebody with a token. */
export class User {
  readonly id: string
  readonly token: string
  readonly #world: World

  constructor(world: World, id: string) {
    this.#world = world
    this.id = id
    this.token = sign({ sub: id })
  }

  call<Body = Record<string, unknown>>(method: string, path: string, body?: unknown): Promise<Answer<Body>> {
    return this.#world.call<Body>(path, { method, token: this.token, ...(body === undefined ? {} : { body }) })
  }

  get<Body = Record<string, unknown>>(path: string): Promise<Body> {
    return succeed(this.call<Body>('GET', path))
  }

  write<Body = { seq: number; position: string }>(method: string, path: string, body?: unknown): Promise<Body> {
    return succeed(this.call<Body>(method, path, body))
  }

  group(members: readonly User[] = [], fields: object = {}): Promise<Conversation> {
    return this.write('POST', '/v1/conversations', { type: 'group', memberIds: members.map(({ id }) => id), ...fields })
  }

  direct(other: User): Promise<Conversation> {
    return this.write('POST', '/v1/conversations', { type: 'direct', memberIds: [other.id] })
  }

  send(conversation: { conversationId: string }, words = 'hello', fields: object = {}): Promise<Sent> {
    return this.write('POST', `/v1/conversations/${conversation.conversationId}/messages`, {
      clientMessageId: unique('m'),
      content: text(words),
      ...fields,
    })
  }

  /** Some messages, one after the other; gives the last. */
  async sendMany(conversation: { conversationId: string }, count: number): Promise<Sent> {
    let sent: Sent | undefined
    for (let n = 0; n < count; n += 1) sent = await this.send(conversation, `message ${n}`)
    return sent!
  }

  add({ conversationId }: { conversationId: string }, ...members: User[]): Promise<{ seq: number; position: string }> {
    return this.write('POST', `/v1/conversations/${conversationId}/members`, { userIds: members.map(({ id }) => id) })
  }

  remove({ conversationId }: { conversationId: string }, member: User): Promise<{ seq: number; position: string }> {
    return this.write('DELETE', `/v1/conversations/${conversationId}/members/${member.id}`)
  }

  leave({ conversationId }: { conversationId: string }): Promise<{ seq: number; position: string }> {
    return this.write('POST', `/v1/conversations/${conversationId}/leave`)
  }

  recall({ conversationId }: { conversationId: string }, seq: number): Promise<{ seq: number; position: string }> {
    return this.write('DELETE', `/v1/conversations/${conversationId}/messages/${seq}`)
  }

  /** The whole stream, page by page. */
  async events({ conversationId }: { conversationId: string }): Promise<Event[]> {
    const events: Event[] = []
    for (;;) {
      const page = await this.get<{ items: Event[]; head: number }>(
        `/v1/conversations/${conversationId}/events?limit=200&after=${events.at(-1)?.seq ?? -1}`,
      )
      events.push(...page.items)
      if (page.items.length === 0 || events.at(-1)!.seq >= page.head) return events
    }
  }

  /** A device that has said hello. */
  async connect(options: Partial<Hello> & DeviceOptions = {}): Promise<Device> {
    const { path, headers, autoPong, ...hello } = options
    const device = await this.open({
      ...(path === undefined ? {} : { path }),
      ...(headers === undefined ? {} : { headers }),
      ...(autoPong === undefined ? {} : { autoPong }),
    })
    const answer = await device.sayHello({ token: this.token, ...hello })
    if (answer.type === 'ok') return device
    device.terminate()
    throw new Error(`hello was refused: ${JSON.stringify(answer)}`)
  }

  open(options: DeviceOptions = {}): Promise<Device> {
    return this.#world.open(options)
  }
}

/** A server with those who use it. What its sockets saw is judged when it is asked. */
export class World {
  readonly url: string
  readonly #devices: Device[] = []

  constructor(url: string) {
    this.url = url
  }

  call<Body = Record<string, unknown>>(path: string, options: CallOptions = {}): Promise<Answer<Body>> {
    return call<Body>(this.url + path, options)
  }

  user(prefix = 'user'): User {
    return new User(this, unique(prefix))
  }

  users<Prefixes extends string[]>(...prefixes: Prefixes): { [Index in keyof Prefixes]: User } {
    return prefixes.map((prefix) => this.user(prefix)) as { [Index in keyof Prefixes]: User }
  }

  async open(options: DeviceOptions = {}): Promise<Device> {
    const device = await Device.open(this.url, options)
    this.#devices.push(device)
    return device
  }

  /** What sockets saw that none may see. */
  violations(): string[] {
    return this.#devices.flatMap((device) => device.violations)
  }

  /** Ends all sockets; gives what no connection may have seen. */
  endDevices(): string[] {
    const violations = this.violations()
    for (const device of this.#devices.splice(0)) device.terminate()
    return violations
  }
}

/** Asks again until it is so, without waiting longer than it takes. */
export async function eventually<T>(probe: () => Promise<T | undefined | false>, what: string, patienceMs = 15_000): Promise<T> {
  const end = performance.now() + patienceMs
  for (;;) {
    const found = await probe()
    if (found) return found
    if (performance.now() > end) throw new Error(`expected ${what} within ${patienceMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

export type { Frame }
