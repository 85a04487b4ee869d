/** (b) One group of 1,000 members who all look at it: what a message costs when everybody gets it. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Convolog, inParallel } from './convolog.js'
import { Device } from './device.js'
import { Latencies, type Row, milliseconds, percent, rate } from './figures.js'
import { ReadOnce, kindOf, messagesIn, parseOk, sendFrame } from './frames.js'
import { Program, cpuBetween, describeCpu } from './processes.js'
import { worker } from './worker.js'

const MEMBERS = 1_000
const SENDERS = 20
/** Messages a second; each is delivered to all members. */
const SWEEP = [160, 320, 480, 640, 800, 1_000, 1_250, 1_500]
const GOAL = 320
const STEP_MS = 3_000
/** The contract merges for up to 100 ms; what takes this much longer has begun to queue. */
const SUSTAINED_P99_MS = 300
const DRAIN_MS_MAX = 5_000
const RAW_MS = 3_000
const RAW_EVENTS_PER_FRAME = 10

interface Step {
  deliveriesPerSecond: number
  deliveries: Latencies
  eventsPerFrame: number
  cpu: string
  isSustained: boolean
}

export async function benchGroup(): Promise<Row[]> {
  const raw = await broadcastRaw()
  const convolog = await Convolog.start()
  try {
    const group = await openGroup(convolog)
    const steps: Step[] = []
    for (const messagesPerSecond of SWEEP) {
      const step = await group.run(messagesPerSecond)
      steps.push(step)
      const verdict = step.isSustained ? 'sustained' : 'too much'
      console.log(
        `(b) ${messagesPerSecond} messages/s: ${rate(step.deliveriesPerSecond, 'deliveries')}, ${String(step.deliveries)}, ${step.eventsPerFrame.toFixed(1)} events a frame, ${verdict}; ${step.cpu}`,
      )
      if (!step.isSustained) break
    }
    if (!group.isBroken) await group.check()
    group.close()
    const best = steps.filter(({ isSustained }) => isSustained).at(-1) ?? steps[0]!
    const goal = steps[SWEEP.indexOf(GOAL)] ?? best
    return [
      {
        what: `(b) group of ${MEMBERS}, most`,
        figure: rate(best.deliveriesPerSecond, 'deliveries'),
        raw: rate(raw, 'deliveries'),
        ratio: percent(best.deliveriesPerSecond / raw),
        goal: `≥ ${(GOAL * MEMBERS).toLocaleString('en')} deliveries/s`,
      },
      {
        what: '    send to delivery then',
        figure: `${String(best.deliveries)}, ${best.eventsPerFrame.toFixed(0)} events a frame`,
        goal: 'merged for up to 100 ms',
      },
      {
        what: `    at ${GOAL} messages/s`,
        figure: `${rate(goal.deliveriesPerSecond, 'deliveries')}, p99 ${milliseconds(goal.deliveries.at(0.99))}`,
      },
    ]
  } finally {
    await convolog.stop()
  }
}

/** The group's devices: all are members, the first ones send. */
class Group {
  readonly #convolog: Convolog
  readonly #conversationId: string
  readonly #devices: readonly Device[]
  /** By seq: the seqs of all senders are one sequence. */
  readonly #sentAt: number[][] = Array.from({ length: SENDERS }, () => [])
  readonly #senderOfSeq: number[] = []
  #answered = 0
  #sent = 0
  #delivered = 0
  #frames = 0
  #closedWith: number | undefined
  #latencies: Latencies | undefined

  constructor(convolog: Convolog, conversationId: string, devices: readonly Device[]) {
    this.#convolog = convolog
    this.#conversationId = conversationId
    this.#devices = devices
    for (const [index, device] of devices.entries()) this.#listen(device, index)
  }

  get isBroken(): boolean {
    return this.#closedWith !== undefined
  }

  close(): void {
    for (const device of this.#devices) device.close()
  }

  async check(): Promise<void> {
    const head = await this.#convolog.head('u0', this.#conversationId)
    if (head !== this.#sent) throw new Error(`the head is ${head}, and ${this.#sent} messages were sent`)
  }

  /** Sends at a rate for a while, and waits until all has arrived. */
  async run(messagesPerSecond: number): Promise<Step> {
    const latencies = new Latencies()
    this.#latencies = latencies
    const [deliveredBefore, framesBefore, before] = [this.#delivered, this.#frames, this.#convolog.program.cpu()]
    const first = this.#sent
    while (performance.now() < before.at + STEP_MS) {
      const due = first + Math.floor(((performance.now() - before.at) / 1_000) * messagesPerSecond)
      while (this.#sent < due) this.#sendNext()
      await sleep(2)
    }
    const cpu = cpuBetween(before, this.#convolog.program.cpu())
    const deliveredInTime = this.#delivered - deliveredBefore
    await this.#drain()
    const deliveriesPerSecond = (deliveredInTime / cpu.at) * 1_000
    const isSustained = !this.isBroken && latencies.at(0.99) <= SUSTAINED_P99_MS && deliveriesPerSecond > messagesPerSecond * MEMBERS * 0.9
    return {
      deliveriesPerSecond,
      deliveries: latencies,
      eventsPerFrame: (this.#delivered - deliveredBefore) / (this.#frames - framesBefore),
      cpu: describeCpu(cpu),
      isSustained,
    }
  }

  #sendNext(): void {
    const sender = this.#sent++ % SENDERS
    const sentAt = this.#sentAt[sender]!
    this.#devices[sender]!.send(sendFrame(this.#conversationId, sentAt.length))
    sentAt.push(performance.now())
  }

  async #drain(): Promise<void> {
    for (let waitedMs = 0; this.#answered < this.#sent || this.#delivered < this.#sent * MEMBERS; waitedMs += 10) {
      if (this.isBroken) return
      if (waitedMs > DRAIN_MS_MAX)
        throw new Error(`${this.#sent * MEMBERS - this.#delivered} deliveries are missing ${DRAIN_MS_MAX} ms after the last send`)
      await sleep(10)
    }
  }

  #listen(device: Device, index: number): void {
    let seen = 0
    // A device that can't follow is told to come back: then the rate is not sustained. Nothing else may close.
    device.onClose = (code) => {
      if (code !== 4001) throw new Error(`device ${index} was closed with ${code}`)
      this.#closedWith = code
    }
    device.onText = (bytes, from, to, at) => {
      const kind = kindOf(bytes, from)
      if (kind === 'events') seen = this.#take(bytes, from, to, seen, at)
      else if (kind === 'ok') this.#takeOk(bytes.toString('latin1', from, to), index)
    }
  }

  readonly #answeredBySender = new Array<number>(SENDERS).fill(0)
  #takeOk(frame: string, sender: number): void {
    const { n, seq } = parseOk(frame)
    if (n !== this.#answeredBySender[sender]) throw new Error(`message ${n} of sender ${sender} was answered out of order`)
    if ((this.#senderOfSeq[seq] ??= sender) !== sender) throw new Error(`seq ${seq} was given to two senders`)
    this.#answeredBySender[sender] = n + 1
    this.#answered += 1
  }

  readonly #readOnce = new ReadOnce((frame) => this.#read(frame))
  #take(bytes: Buffer, from: number, to: number, seen: number, at: number): number {
    const messages = this.#readOnce.of(bytes, from, to)
    let next = seen
    for (const { seq, sentAt } of messages) {
      if (seq !== next + 1) throw new Error(`seq ${seq} came after ${next}: lost, doubled or out of order`)
      next = seq
      this.#latencies?.add(at - sentAt)
    }
    this.#delivered += messages.length
    this.#frames += 1
    return next
  }

  readonly #readBySender = new Map<string, number>()
  /** Each seq is one message, and each sender's come in the order of sending. */
  #read(frame: string): { seq: number; sentAt: number }[] {
    const messages: { seq: number; sentAt: number }[] = []
    messagesIn(frame, (seq, n) => {
      const userId = userIdBefore(frame, seq)
      const key = `${userId} ${n}`
      if ((this.#seqOf.get(key) ?? seq) !== seq) throw new Error(`message ${n} of ${userId} came as two seqs`)
      const last = this.#readBySender.get(userId) ?? -1
      if (!this.#seqOf.has(key) && n !== last + 1) throw new Error(`message ${n} of ${userId} came after ${last}`)
      this.#seqOf.set(key, seq)
      this.#readBySender.set(userId, Math.max(last, n))
      messages.push({ seq, sentAt: this.#sentAt[Number(userId.slice(1))]![n]! })
    })
    return messages
  }
  readonly #seqOf = new Map<string, number>()
}

/** The actor of the event with this seq. */
function userIdBefore(frame: string, seq: number): string {
  const at = frame.indexOf('"userId":"', frame.indexOf(`"seq":${seq},`)) + 10
  return frame.slice(at, frame.indexOf('"', at))
}

async function openGroup(convolog: Convolog): Promise<Group> {
  const users = Array.from({ length: MEMBERS }, (_, i) => `u${i}`)
  const { conversationId, position } = await convolog.call<{ conversationId: string; position: string }>('u0', 'POST', '/conversations', {
    type: 'group',
    memberIds: users.slice(1),
  })
  await convolog.caughtUp('u0', position, DRAIN_MS_MAX)
  const devices = await inParallel(users, 50, async (userId) => {
    const device = await Device.open(convolog.url)
    await device.hello({ token: convolog.token(userId) })
    return device
  })
  const group = new Group(convolog, conversationId, devices)
  for (const device of devices) device.send(`{"type":"active","conversationId":"${conversationId}"}`)
  await sleep(500)
  return group
}

/** A server that writes one frame of ten events, built once, to all sockets as fast as they take it. */
async function broadcastRaw(): Promise<number> {
  const program = new Program([worker('raw-broadcast'), String(MEMBERS), String(RAW_EVENTS_PER_FRAME)])
  const { url } = await program.result<{ url: string }>()
  let frames = 0
  const devices = await inParallel(
    Array.from({ length: MEMBERS }, (_, i) => i),
    50,
    async () => {
      const device = await Device.open(url)
      device.onText = () => {
        frames += 1
      }
      return device
    },
  )
  await sleep(500)
  const [framesBefore, before] = [frames, program.cpu()]
  await sleep(RAW_MS)
  const perSecond = ((frames - framesBefore) * RAW_EVENTS_PER_FRAME * 1_000) / (performance.now() - before.at)
  console.log(`(b) raw: ${describeCpu(cpuBetween(before, program.cpu()))}`)
  for (const device of devices) device.close()
  await program.stop()
  return perSecond
}
