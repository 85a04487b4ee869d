/** (d) A device comes back after a thousand messages. */
import { Convolog, inParallel } from './convolog.js'
import { Device } from './device.js'
import { Latencies, type Row, times } from './figures.js'
import { kindOf, parseOk, sendFrame } from './frames.js'
import { Program } from './processes.js'
import { worker } from './worker.js'

const MISSED = 1_000
const RESUMES = 40
const WAIT_MS_MAX = 10_000

export async function benchResume(): Promise<Row[]> {
  const raw = await resumeRaw()
  const convolog = await Convolog.start()
  try {
    const one = await resume(convolog, 'one', 1)
    const many = await resume(convolog, 'many', 50)
    const row = (what: string, latencies: Latencies) => ({
      what,
      figure: String(latencies),
      raw: String(raw),
      ratio: times(latencies.at(0.5) / raw.at(0.5)),
      goal: '≤ 20 ms',
    })
    return [row('(d) resume of 1,000 in 1 conversation', one), row('    of 20 in each of 50', many)]
  } finally {
    await convolog.stop()
  }
}

async function resume(convolog: Convolog, reader: string, conversations: number): Promise<Latencies> {
  const each = MISSED / conversations
  const senders = Array.from({ length: conversations }, (_, i) => `${reader}-${i}`)
  const opened = await inParallel(senders, 10, (sender) => convolog.createDirect(sender, reader))
  const missedFrom = opened
    .map(({ position }) => position)
    .sort()
    .at(-1)!
  const positions = await inParallel(
    senders.map((sender, i) => ({ sender, id: opened[i]!.conversationId })),
    10,
    ({ sender, id }) => sendAll(convolog, sender, id, each),
  )
  await convolog.caughtUp(reader, positions.sort().at(-1)!, WAIT_MS_MAX)
  const latencies = new Latencies()
  const token = convolog.token(reader)
  for (let i = 0; i < RESUMES; i++) {
    const expected = new Map(opened.map(({ conversationId }) => [conversationId, each]))
    latencies.add(await timeOfResume(convolog.url, { token, position: missedFrom }, expected))
  }
  return latencies
}

async function sendAll(convolog: Convolog, sender: string, conversationId: string, count: number): Promise<string> {
  const device = await Device.open(convolog.url)
  await device.hello({ token: convolog.token(sender) })
  const last = new Promise<string>((resolve) => {
    device.onText = (bytes, from, to) => {
      if (kindOf(bytes, from) !== 'ok') return
      const { seq, position } = parseOk(bytes.toString('latin1', from, to))
      if (seq === count) resolve(position)
    }
  })
  for (let n = 0; n < count; n++) device.send(sendFrame(conversationId, n))
  const position = await last
  device.close()
  return position
}

/** From hello to the last missed event; each must come once, in order, and nothing else. */
async function timeOfResume(url: string, hello: object, expected: ReadonlyMap<string, number>): Promise<number> {
  const device = await Device.open(url)
  const seen = new Map<string, number>()
  const frames: { text: Buffer; at: number }[] = []
  const total = [...expected.values()].reduce((sum, count) => sum + count, 0)
  let count = 0
  const all = new Promise<number>((resolve) => {
    device.onText = (bytes, from, to, at) => {
      if (kindOf(bytes, from) !== 'events') return
      // Counted at once, read after the clock has stopped.
      frames.push({ text: Buffer.from(bytes.subarray(from, to)), at })
      for (let i = bytes.indexOf('"MessageSent"', from); i >= 0 && i < to; i = bytes.indexOf('"MessageSent"', i + 1)) count += 1
      if (count >= total) resolve(at)
    }
  })
  const startedAt = performance.now()
  const { recovered } = await device.hello(hello)
  if (!recovered) throw new Error('the resume was refused')
  const lastAt = await Promise.race([
    all,
    new Promise<never>((_, reject) =>
      setTimeout(() => reject(new Error(`${total - count} of ${total} missed events did not come`)), WAIT_MS_MAX).unref(),
    ),
  ])
  device.close()
  for (const { text } of frames) {
    const { events } = JSON.parse(text.toString()) as { events: { conversationId: string; seq: number }[] }
    for (const { conversationId, seq } of events) {
      const last = seen.get(conversationId) ?? 0
      if (seq !== last + 1) throw new Error(`seq ${seq} of ${conversationId} came after ${last}`)
      seen.set(conversationId, seq)
    }
  }
  for (const [conversationId, last] of expected)
    if (seen.get(conversationId) !== last) throw new Error(`${conversationId} ended at ${seen.get(conversationId)} instead of ${last}`)
  return lastAt - startedAt
}

/** One SELECT of a thousand rows, one write. */
async function resumeRaw(): Promise<Latencies> {
  const program = new Program([worker('raw-resume'), String(MISSED)])
  const { url } = await program.result<{ url: string }>()
  const latencies = new Latencies()
  for (let i = 0; i < RESUMES; i++) latencies.add(await timeOfResume(url, {}, new Map([['raw', MISSED]])))
  await program.stop()
  return latencies
}
