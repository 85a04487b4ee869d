import type { Frame } from '../support/device.js'
import type { AnswerCheck, Kind, Request } from './answer-check.js'
import type { Checks } from './checks.js'
import { ConnectionCheck } from './connection-check.js'
import type { SimulatedNode } from './node.js'
import type { Random } from './random.js'
import { Line } from './socket.js'
import type { World } from './world.js'

const POSITIONS_MAX = 8
/** Of what was said without a ref, an error may come so much later. */
const UNANSWERED_MS = 60_000

export interface DeviceParts {
  world: World
  checks: Checks
  answers: AnswerCheck
}

type Asked = Map<number, Request | 'hello'>

/** What a user does with answers: a send that was not settled is sent again. */
export interface DeviceOwner {
  readonly userId: string
  onSettled(request: Request, outcome: { ok?: Frame; error?: { code: string } }): void
  onLost(request: Request): void
}

/** A device with at most one connection; it keeps positions, also old ones, and acknowledges when it feels like it. */
export class SimulatedDevice {
  readonly deviceId: string
  readonly #parts: DeviceParts
  readonly #owner: DeviceOwner
  readonly #random: Random
  #line: Line | undefined
  check: ConnectionCheck | undefined
  node: SimulatedNode | undefined
  state: 'off' | 'greeting' | 'on' = 'off'
  /** Places to resume from, the newest last. */
  readonly positions: string[] = []
  /** Never acknowledges. */
  isLazy = false
  #ref = 0
  #connections = 0
  /** By ref, of the present connection. */
  #asked: Asked = new Map()
  readonly #unnumbered: { conversationId: string; seq: number; at: number }[] = []

  constructor(deviceId: string, owner: DeviceOwner, parts: DeviceParts, random: Random) {
    this.deviceId = deviceId
    this.#owner = owner
    this.#parts = parts
    this.#random = random
  }

  connect(node: SimulatedNode, { position, acks }: { position: string | undefined; acks: boolean }): void {
    const { world, checks } = this.#parts
    this.cut(true)
    const { userId } = this.#owner
    const name = `${userId}/${this.deviceId}#${(this.#connections += 1)} on ${node.name}`
    const check = new ConnectionCheck(world, checks, { userId, node }, name)
    check.attachedPlace = node.fedPlace
    const asked: Asked = new Map()
    this.#asked = asked
    const line: Line = new Line(world.clock, this.#random, {
      onWritten: (frame) => this.#written(check, asked, frame, position),
      onFrame: (frame) => {
        if (this.#line === line) this.#arrived(frame)
      },
      onClosed: (code) => {
        world.note(`${name} is closed with ${code}`)
        if (this.#line === line) this.#ended()
      },
    })
    this.#line = line
    this.check = check
    this.node = node
    this.state = 'greeting'
    world.note(`${name} says hello with ${position ?? 'no position'}${acks ? ', acks' : ''}`)
    node.connect(line)
    this.#say({ type: 'hello', token: userId, deviceId: this.deviceId, ...(position === undefined ? {} : { position }), acks }, 'hello')
  }

  cut(isNoticed: boolean): void {
    this.#line?.cut({ isNoticed })
    this.#ended()
  }

  /** Reads nothing for a while. */
  pause(ms: number): void {
    if (this.#line) this.#line.readsFrom = this.#parts.world.clock.now + ms
  }

  request(request: Request, frame: object): void {
    this.#say(frame, request)
  }

  /** What gets no answer where it succeeds. */
  sayUnnumbered(frame: { type: string; conversationId: string; seq: number }): void {
    this.#parts.world.note(() => `${this.#owner.userId}/${this.deviceId} says ${JSON.stringify(frame)}`)
    this.#unnumbered.push({ ...frame, at: this.#parts.world.clock.now })
    this.#line?.say(frame)
  }

  sayActive(conversationId: string | null): void {
    if (conversationId !== null) this.#unnumbered.push({ conversationId, seq: 0, at: this.#parts.world.clock.now })
    this.#line?.say({ type: 'active', conversationId })
  }

  /** Whether hello waits for its answer. */
  get isGreeting(): boolean {
    return this.state === 'greeting'
  }

  #say(frame: object, asked: Request | 'hello'): void {
    const ref = (this.#ref += 1)
    this.#asked.set(ref, asked)
    this.#line?.say({ ...frame, ref })
  }

  // --- at the moment at which the server writes ---

  #written(check: ConnectionCheck, requests: Asked, frame: Frame, position: string | undefined): void {
    const { world, answers } = this.#parts
    if (frame.type === 'ok' || (frame.type === 'error' && frame.ref !== undefined)) {
      const asked = requests.get(frame.ref!)
      if (asked === 'hello' && frame.type === 'ok') {
        world.note(`hello of ${this.#owner.userId}/${this.deviceId} is answered: ${frame.position}`)
        check.begin(frame, position)
      } else if (asked === 'hello' && frame.temporary !== true)
        world.report('refused', `hello of ${this.#owner.userId}: ${frame.code}, ${frame.message}`)
      else if (typeof asked === 'object') {
        if (frame.type === 'ok') answers.answered(asked, frame)
        else answers.refused(asked, frame.code!, frame.message!)
      }
      return
    }
    if (frame.type === 'error') return this.#unnumberedError(frame)
    check.frame(frame)
  }

  #unnumberedError({ code, message, temporary }: Frame): void {
    const { truth, clock, report } = { ...this.#parts.world, report: this.#parts.world.report.bind(this.#parts.world) }
    const { userId } = this.#owner
    // The first two say why a close follows; a device that has not read that its hello failed says it again too late.
    if (temporary || message!.startsWith('A newer connection') || message!.startsWith('hello must come')) return
    const said = this.#unnumbered.filter(({ at }) => at > clock.now - UNANSWERED_MS)
    const isDue = code === 'not_found' && said.some(({ conversationId, at }) => truth.wasOutside(conversationId, userId, at, clock.now))
    if (!isDue) report('refused-write', `${userId}/${this.deviceId} on ${this.node?.name}, without a ref: ${code}, ${message}`)
  }

  // --- when it has arrived ---

  #arrived(frame: Frame): void {
    const asked = frame.ref === undefined ? undefined : this.#asked.get(frame.ref)
    if (frame.ref !== undefined) this.#asked.delete(frame.ref)
    if (asked === 'hello') {
      if (frame.type !== 'ok') return this.cut(true)
      this.state = 'on'
      this.keepPosition(frame.position!)
      return
    }
    if (typeof asked === 'object') {
      if (frame.type === 'ok') this.#owner.onSettled(asked, { ok: frame })
      else this.#owner.onSettled(asked, { error: { code: frame.code! } })
      return
    }
    if (frame.resume !== undefined) this.keepPosition(frame.resume)
    if (frame.type === 'events' && !this.isLazy) this.#acknowledge(frame)
  }

  keepPosition(position: string): void {
    if (this.positions.at(-1) === position) return
    this.positions.push(position)
    if (this.positions.length > POSITIONS_MAX) this.positions.splice(this.#random.int(POSITIONS_MAX), 1)
  }

  #acknowledge({ events }: Frame): void {
    const last = events!.at(-1)!
    if (!this.#random.chance(0.6)) return
    const [line, check, { clock }] = [this.#line, this.check, this.#parts.world]
    clock.at(clock.now + this.#random.between(0, 50), () => {
      if (line !== this.#line || this.state !== 'on') return
      this.sayUnnumbered({ type: 'ack', conversationId: last.conversationId, seq: last.seq })
      check?.acknowledged(last.conversationId, last.seq)
    })
  }

  #ended(): void {
    this.#line = undefined
    this.state = 'off'
    const lost = [...this.#asked.values()]
    this.#asked = new Map()
    for (const asked of lost) if (typeof asked === 'object') this.#owner.onLost(asked)
  }
}

/** The frame of a request, where the socket has one for it. */
export function frameOf({ kind, conversationId, seq, clientMessageId, content, after, limit }: Request): object | undefined {
  const frames: Partial<Record<Kind, object>> = {
    send: { type: 'message.send', conversationId, clientMessageId, content },
    edit: { type: 'message.edit', conversationId, seq, content },
    recall: { type: 'message.recall', conversationId, seq },
    react: { type: 'reaction.add', conversationId, seq, emoji: '👍' },
    unreact: { type: 'reaction.remove', conversationId, seq, emoji: '👍' },
    read: { type: 'read', conversationId, seq },
    events: { type: 'events.get', conversationId, ...(after === undefined ? {} : { after }), limit: limit ?? 50 },
  }
  return frames[kind]
}
