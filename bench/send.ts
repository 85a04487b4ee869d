/** (a) 1:1 messages, and (c) what the read models make of them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Convolog, type Replayed, inParallel } from './convolog.js'
import { Device } from './device.js'
import { Latencies, type Row, byCpu, microseconds, milliseconds, percent, rate } from './figures.js'
import { kindOf, messagesIn, parseOk, sendFrame } from './frames.js'
import { type Cpu, Program, cpuBetween, describeCpu } from './processes.js'
import { worker } from './worker.js'

const PAIRS = 200
const WINDOW = 8
const WARM_UP_MS = 4_000
const MEASURED_MS = 10_000
const RAW_MEASURED_MS = 6_000
const CATCH_UP_MS_MAX = 60_000

/** (a), and from the log that it leaves (c). */
export async function benchSend({ replays }: { replays: boolean }): Promise<Row[]> {
  const raw = await sendRaw()
  const { load, lag, caughtUpMs, replayed } = await sendReal(replays)
  console.log(`(a) ${describeCpu(load.cpu)}; ${describeCost(load)}\n    raw: ${describeCpu(raw.cpu)}; ${describeCost(raw)}`)
  return [
    {
      what: '(a) 1:1 send',
      figure: rate(load.perSecond, 'messages'),
      raw: rate(raw.perSecond, 'messages'),
      ratio: percent(load.perSecond / raw.perSecond),
      byCpu: byCpu(costOf(load), costOf(raw)),
      goal: '≥ 40 %',
    },
    { what: '    send to ok', figure: String(load.answers), raw: String(raw.answers), goal: 'p99 ≤ 150 ms' },
    { what: '    send to delivery', figure: String(load.deliveries) },
    {
      what: '(c) read models behind',
      figure: `${lag.middle.toLocaleString('en')} … ${lag.end.toLocaleString('en')} events, ${milliseconds(caughtUpMs)} to catch up`,
      goal: 'does not grow',
    },
    ...(replayed ? await rowsOfReplay(replayed) : []),
  ]
}

async function rowsOfReplay({ eventsPerSecond, cpuMsPerEvent }: Replayed): Promise<Row[]> {
  const raw = await new Program([worker('raw-rows')]).result<{ perSecond: number; cpuMsPerRow: number }>()
  return [
    {
      what: '(c) rebuild',
      figure: rate(eventsPerSecond, 'events'),
      raw: rate(raw.perSecond, 'rows'),
      ratio: percent(eventsPerSecond / raw.perSecond),
      byCpu: byCpu(cpuMsPerEvent, raw.cpuMsPerRow),
      goal: '≥ 60,000 events/s',
    },
  ]
}

/** The real thing: sends, waits for the read models, checks, and where asked builds them anew. */
export async function sendReal(replays: boolean): Promise<Run & { caughtUpMs: number; replayed: Replayed | undefined }> {
  const convolog = await Convolog.start()
  try {
    const pairs = await inParallel(
      Array.from({ length: PAIRS }, (_, i) => i),
      20,
      (i) => openPair(convolog, i),
    )
    const ran = await run(pairs, convolog.program, MEASURED_MS, convolog)
    const caughtUpMs = await convolog.caughtUp(
      's0',
      pairs
        .map(({ lastPosition }) => lastPosition)
        .sort()
        .at(-1)!,
      CATCH_UP_MS_MAX,
    )
    await inParallel(pairs, 20, (pair) => pair.check(convolog))
    for (const pair of pairs) pair.close()
    if (!replays) return { ...ran, caughtUpMs, replayed: undefined }
    const replayed = await convolog.replay()
    const events = pairs.reduce((sum, { sent }) => sum + sent + 1, 0)
    if (replayed.events !== events) throw new Error(`the log has ${events} events, and ${replayed.events} were replayed`)
    return { ...ran, caughtUpMs, replayed }
  } finally {
    await convolog.stop()
  }
}

interface Run {
  load: Load
  /** Of the read models, in positions. */
  lag: { middle: number; end: number }
}

interface Load {
  perSecond: number
  messages: number
  cpu: Cpu
  answers: Latencies
  deliveries: Latencies
}

/** CPU time a message, of the server and its Postgres. */
const costOf = ({ messages, cpu: { program, children } }: Load) => (program + children) / messages

const describeCost = ({ messages, cpu: { program, children } }: Load) =>
  `a message: server ${microseconds(program / messages)}, Postgres ${microseconds(children / messages)}`

/** One sender with a window of unanswered messages, and whoever gets them. */
class Pair {
  readonly #conversationId: string
  readonly #sender: Device
  readonly #receiver: Device | undefined
  readonly #sentAt: number[] = []
  #answered = 0
  #received = 0
  #isSending = false
  lastPosition = ''
  measured: { answers: Latencies; deliveries: Latencies } | undefined

  constructor(conversationId: string, sender: Device, receiver: Device | undefined) {
    this.#conversationId = conversationId
    this.#sender = sender
    this.#receiver = receiver
    sender.onText = this.#senderReads()
    if (receiver) receiver.onText = this.#receiverReads()
  }

  get sent(): number {
    return this.#sentAt.length
  }

  get answered(): number {
    return this.#answered
  }

  get isDone(): boolean {
    return this.#answered === this.sent && (!this.#receiver || this.#received === this.sent)
  }

  start(): void {
    this.#isSending = true
    for (let i = 0; i < WINDOW; i++) this.#send()
  }

  stop(): void {
    this.#isSending = false
  }

  close(): void {
    this.#sender.close()
    this.#receiver?.close()
  }

  /** That the log ends where this pair thinks it does. */
  async check(convolog: Convolog, sender = senderOf.get(this) ?? ''): Promise<void> {
    const head = await convolog.head(sender, this.#conversationId)
    if (head !== this.sent) throw new Error(`${this.#conversationId} has its head at ${head}, and ${this.sent} messages were sent`)
  }

  #send(): void {
    const n = this.#sentAt.length
    this.#sentAt.push(performance.now())
    this.#sender.send(sendFrame(this.#conversationId, n))
  }

  #senderReads(): Device['onText'] {
    let seen = 0
    return (bytes, from, to, at) => {
      const kind = kindOf(bytes, from)
      if (kind === 'events') seen = this.#take(bytes.toString('latin1', from, to), seen, undefined, at)
      else this.#takeOk(bytes.toString('latin1', from, to), at)
    }
  }

  #takeOk(frame: string, at: number): void {
    const { n, seq, position } = parseOk(frame)
    if (n !== this.#answered || seq !== n + 1) throw new Error(`message ${n} was answered with seq ${seq}, after ${this.#answered} answers`)
    this.#answered += 1
    this.lastPosition = position
    this.measured?.answers.add(at - this.#sentAt[n]!)
    if (this.#isSending) this.#send()
  }

  #receiverReads(): Device['onText'] {
    return (bytes, from, to, at) => {
      if (kindOf(bytes, from) === 'events')
        this.#received = this.#take(bytes.toString('latin1', from, to), this.#received, this.measured?.deliveries, at)
    }
  }

  /** Each message once, in the order of sending, its seq dense. */
  #take(frame: string, before: number, latencies: Latencies | undefined, at: number): number {
    let seen = before
    messagesIn(frame, (seq, n) => {
      if (n !== seen || seq !== seen + 1)
        throw new Error(`seq ${seq} is message ${n}, and ${seen} were seen before: lost, doubled or out of order`)
      seen += 1
      latencies?.add(at - this.#sentAt[n]!)
    })
    return seen
  }
}

const senderOf = new WeakMap<Pair, string>()

async function openPair(convolog: Convolog, i: number): Promise<Pair> {
  const [sender, receiver] = [`s${i}`, `r${i}`]
  const { conversationId, position } = await convolog.createDirect(sender, receiver)
  await convolog.caughtUp(sender, position, CATCH_UP_MS_MAX)
  const devices = await Promise.all(
    [sender, receiver].map(async (userId) => {
      const device = await Device.open(convolog.url)
      await device.hello({ token: convolog.token(userId) })
      return device
    }),
  )
  const pair = new Pair(conversationId, devices[0]!, devices[1])
  senderOf.set(pair, sender)
  return pair
}

/** The same generator and frames against a server that only inserts and answers. */
export async function sendRaw(): Promise<Load> {
  const program = new Program([worker('raw-send')])
  const { url } = await program.result<{ url: string }>()
  const pairs = await inParallel(
    Array.from({ length: PAIRS }, (_, i) => i),
    20,
    async (i) => {
      const device = await Device.open(url)
      await device.hello({ token: `s${i}` })
      return new Pair(`d-${String(i).padStart(43, '0')}`, device, undefined)
    },
  )
  const { load } = await run(pairs, program, RAW_MEASURED_MS)
  for (const pair of pairs) pair.close()
  await program.stop()
  return load
}

async function run(pairs: readonly Pair[], program: Program, measuredMs: number, convolog?: Convolog): Promise<Run> {
  for (const pair of pairs) pair.start()
  await sleep(WARM_UP_MS)
  const measured = { answers: new Latencies(), deliveries: new Latencies() }
  for (const pair of pairs) pair.measured = measured
  const before: Cpu = program.cpu()
  const answeredBefore = answeredBy(pairs)
  await sleep(measuredMs / 2)
  const middle = (await convolog?.lag()) ?? 0
  await sleep(before.at + measuredMs - performance.now())
  const messages = answeredBy(pairs) - answeredBefore
  const cpu = cpuBetween(before, program.cpu())
  const end = (await convolog?.lag()) ?? 0
  for (const pair of pairs) {
    pair.measured = undefined
    pair.stop()
  }
  await untilDone(pairs)
  return { load: { perSecond: (messages / cpu.at) * 1_000, messages, cpu, ...measured }, lag: { middle, end } }
}

const answeredBy = (pairs: readonly Pair[]) => pairs.reduce((sum, { answered }) => sum + answered, 0)

async function untilDone(pairs: readonly Pair[]): Promise<void> {
  for (let waitedMs = 0; !pairs.every(({ isDone }) => isDone); waitedMs += 10) {
    if (waitedMs > 10_000) throw new Error('messages were lost: after 10 s not all were answered and delivered')
    await sleep(10)
  }
}
