/** (large, online) One group of 10,000 members who are all online, while one of them sends. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Convolog, inParallel } from './convolog.js'
import { Device } from './device.js'
import { Latencies, type Row, kilobytes, megabytes, milliseconds, rate } from './figures.js'
import { Follower } from './follower.js'
import { ReadOnce, kindOf, messagesIn, parseHead, parseOk, sendFrame } from './frames.js'
import { type Cpu, cpuBetween, describeCpu } from './processes.js'

const MEMBERS = 10_000
const AT_ONCE = 200
const MESSAGES_PER_SECOND = 50
const SENDING_MS = 20_000
const SETTLE_MS = 2_000
const DRAIN_MS_MAX = 30_000
/** Devices that pull what was only announced to them, and compare it. */
const PULLING = 200
const PULLED_AT_ONCE = 200

export async function benchOnline(): Promise<Row[]> {
  const convolog = await Convolog.start()
  try {
    const { conversationId, head } = await convolog.createGroup(
      'u0',
      Array.from({ length: MEMBERS - 1 }, (_, i) => `u${i + 1}`),
    )
    const group = new OnlineGroup(convolog, conversationId, head)
    const rssBefore = convolog.program.rssBytes()
    const first = await group.enter()
    await sleep(SETTLE_MS)
    const rssAfter = convolog.program.rssBytes()
    const inactive = await group.run()
    await group.pull()
    await group.lookAtIt()
    const active = await group.run()
    await group.leave()
    const again = await group.enter()
    await group.leave()
    return [
      { what: `(online) ${MEMBERS.toLocaleString('en')} devices come in`, figure: `${rate(first.perSecond, 'hellos')}; ${first.cpu}` },
      { what: '    again, when all are known', figure: `${rate(again.perSecond, 'hellos')}; ${again.cpu}` },
      {
        what: '    memory when all are in',
        figure: `${megabytes(rssAfter)}, ${kilobytes((rssAfter - rssBefore) / MEMBERS)} a device more than before`,
      },
      ...rowsOf('inactive', inactive),
      ...rowsOf('active', active),
    ]
  } finally {
    await convolog.stop()
  }
}

interface Entered {
  perSecond: number
  cpu: string
}

interface Ran {
  sentPerSecond: number
  deliveriesPerSecond: number
  frames: number
  messages: number
  deliveries: Latencies
  answers: Latencies
  rssBytes: number
  cpu: Cpu
}

function rowsOf(mode: 'active' | 'inactive', ran: Ran): Row[] {
  console.log(`(online, ${mode}) ${describeCpu(ran.cpu)}`)
  const what = mode === 'active' ? 'deliveries' : 'announcements'
  return [
    {
      what: `    all ${mode}, ${ran.sentPerSecond.toFixed(0)} messages/s`,
      figure: `${rate(ran.deliveriesPerSecond, what)}, ${(ran.messages / ran.frames).toFixed(1)} messages a frame; ${megabytes(ran.rssBytes)}`,
    },
    {
      what: `        send to ${mode === 'active' ? 'delivery' : 'head'}`,
      figure: `${String(ran.deliveries)}, longest ${milliseconds(ran.deliveries.at(1))}`,
    },
    { what: '        send to ok', figure: String(ran.answers) },
  ]
}

interface Member {
  device: Device
  follower: Follower
}

/** Messages that follow each other, as one frame has them. */
interface Piece {
  firstSeq: number
  lastSeq: number
}

/** All are members; the first one sends. */
class OnlineGroup {
  readonly #convolog: Convolog
  readonly #conversationId: string
  /** Before the first message. */
  readonly #baseSeq: number
  readonly #sentAt: number[] = []
  readonly #events = new ReadOnce((frame) => this.#readEvents(frame))
  readonly #heads = new ReadOnce(parseHead)
  #members: Member[] = []
  #answered = 0
  #delivered = 0
  #frames = 0
  #deliveries = new Latencies()
  #answers = new Latencies()

  constructor(convolog: Convolog, conversationId: string, head: number) {
    this.#convolog = convolog
    this.#conversationId = conversationId
    this.#baseSeq = head
  }

  get #head(): number {
    return this.#baseSeq + this.#sentAt.length
  }

  /** Brings all devices in, each under its own name. */
  async enter(): Promise<Entered> {
    const { program, url } = this.#convolog
    const tokens = Array.from({ length: MEMBERS }, (_, i) => this.#convolog.token(`u${i}`))
    const before = program.cpu()
    const devices = await inParallel(tokens, AT_ONCE, async (token) => {
      const device = await Device.open(url)
      await device.hello({ token, deviceId: 'phone' })
      return device
    })
    const cpu = cpuBetween(before, program.cpu())
    this.#members = devices.map((device) => ({ device, follower: new Follower(this.#head) }))
    for (const member of this.#members) this.#listen(member)
    const each = (ms: number) => `${(ms / MEMBERS).toFixed(2)} ms`
    return {
      perSecond: (MEMBERS * 1_000) / cpu.at,
      cpu: `CPU time of each: server ${each(cpu.program)}, Postgres ${each(cpu.children)}`,
    }
  }

  async leave(): Promise<void> {
    for (const { device } of this.#members) device.close()
    this.#members = []
    await sleep(SETTLE_MS)
  }

  /** Everybody opens the conversation. */
  async lookAtIt(): Promise<void> {
    for (const { device } of this.#members) device.send(`{"type":"active","conversationId":"${this.#conversationId}"}`)
    await sleep(SETTLE_MS)
  }

  /** Sends for a while, and waits until everybody has all of it or knows of it. */
  async run(): Promise<Ran> {
    this.#deliveries = new Latencies()
    this.#answers = new Latencies()
    const { program } = this.#convolog
    const [firstSent, deliveredBefore, framesBefore, before] = [this.#sentAt.length, this.#delivered, this.#frames, program.cpu()]
    while (performance.now() < before.at + SENDING_MS) {
      const due = firstSent + Math.floor(((performance.now() - before.at) / 1_000) * MESSAGES_PER_SECOND)
      while (this.#sentAt.length < due) this.#send()
      await sleep(2)
    }
    const cpu = cpuBetween(before, program.cpu())
    const [delivered, rssBytes] = [this.#delivered - deliveredBefore, program.rssBytes()]
    await this.#drain()
    return {
      sentPerSecond: ((this.#sentAt.length - firstSent) * 1_000) / cpu.at,
      deliveriesPerSecond: (delivered * 1_000) / cpu.at,
      frames: this.#frames - framesBefore,
      messages: this.#delivered - deliveredBefore,
      deliveries: this.#deliveries,
      answers: this.#answers,
      rssBytes,
      cpu,
    }
  }

  /** What was announced can be had, whole and in order. */
  async pull(): Promise<void> {
    for (let i = 0; i < PULLING; i++) {
      const { device } = this.#members[Math.floor((i * MEMBERS) / PULLING)]!
      for (let after = this.#baseSeq; after < this.#head; ) {
        const { events } = await device.ask<{ events: { seq: number; data: { clientMessageId: string } }[] }>({
          type: 'events.get',
          conversationId: this.#conversationId,
          after,
          limit: PULLED_AT_ONCE,
        })
        if (events.length === 0) throw new Error(`nothing came after ${after}, and the head is ${this.#head}`)
        for (const { seq, data } of events) {
          if (seq !== ++after || data.clientMessageId !== `m${seq - this.#baseSeq - 1}`)
            throw new Error(`seq ${seq} was pulled in place of ${after}`)
        }
      }
    }
  }

  #send(): void {
    const n = this.#sentAt.length
    this.#sentAt.push(performance.now())
    this.#members[0]!.device.send(sendFrame(this.#conversationId, n))
  }

  async #drain(): Promise<void> {
    const isDone = () => this.#answered === this.#sentAt.length && this.#members.every(({ follower }) => follower.seen === this.#head)
    for (const giveUpAt = performance.now() + DRAIN_MS_MAX; !isDone(); await sleep(50)) {
      const behind = this.#members.filter(({ follower }) => follower.seen < this.#head).length
      if (performance.now() > giveUpAt) throw new Error(`${behind} devices do not have all ${DRAIN_MS_MAX} ms after the last send`)
    }
  }

  #listen({ device, follower }: Member): void {
    device.onText = (bytes, from, to, at) => {
      const kind = kindOf(bytes, from)
      const seen = follower.seen
      if (kind === 'events') {
        const { firstSeq, lastSeq } = this.#events.of(bytes, from, to)
        follower.takeEvents(firstSeq, lastSeq)
        this.#count(firstSeq, lastSeq, at)
      } else if (kind === 'head') {
        const seq = this.#heads.of(bytes, from, to)
        if (follower.takeHead(seq)) this.#count(seen + 1, seq, at)
      } else if (kind === 'ok') this.#takeOk(bytes.toString('latin1', from, to), at)
    }
  }

  #count(firstSeq: number, lastSeq: number, at: number): void {
    this.#frames += 1
    this.#delivered += lastSeq - firstSeq + 1
    for (let seq = firstSeq; seq <= lastSeq; seq++) this.#deliveries.add(at - this.#sentAt[seq - this.#baseSeq - 1]!)
  }

  #takeOk(frame: string, at: number): void {
    const { n, seq } = parseOk(frame)
    if (n !== this.#answered || seq !== this.#baseSeq + n + 1) throw new Error(`message ${n} was answered with seq ${seq}`)
    this.#answered += 1
    this.#answers.add(at - this.#sentAt[n]!)
  }

  /** Each message under its own seq. */
  #readEvents(frame: string): Piece {
    const seqs: number[] = []
    messagesIn(frame, (seq, n) => {
      if (seq !== this.#baseSeq + n + 1 || seq !== (seqs.at(-1) ?? seq - 1) + 1) throw new Error(`message ${n} came as seq ${seq}`)
      seqs.push(seq)
    })
    return { firstSeq: seqs[0]!, lastSeq: seqs.at(-1)! }
  }
}
