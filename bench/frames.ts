/** What the generator reads of the server's frames, by looking for it: parsing all of them would cost more than making the load. */

/** Text of 100 characters. */
const text = 'The quick brown fox jumps over the lazy dog and then it goes on to say something else, to be 100 long'

/** The n-th message of a sender; its number is in its id. */
export const sendFrame = (conversationId: string, n: number) =>
  `{"type":"message.send","ref":${n + 1},"conversationId":"${conversationId}","clientMessageId":"m${n}","content":{"type":"text","text":"${text}"}}`

/** `{"type":"ok","ref":…,"seq":…,"position":"…"}`. @throws when it is not that */
export function parseOk(frame: string): { n: number; seq: number; position: string } {
  if (!frame.startsWith('{"type":"ok","ref":')) throw new Error(`expected ok, got ${frame.slice(0, 300)}`)
  const seqAt = frame.indexOf('"seq":')
  const positionAt = frame.indexOf('"position":"')
  if (seqAt < 0 || frame.includes('"duplicate"')) throw new Error(`expected the first ok, got ${frame.slice(0, 300)}`)
  return {
    n: integerAt(frame, 19) - 1,
    seq: integerAt(frame, seqAt + 6),
    position: positionAt < 0 ? '' : frame.slice(positionAt + 12, frame.indexOf('"', positionAt + 12)),
  }
}

/** Every message in a frame of events: its seq and its number. All events must be messages. */
export function messagesIn(frame: string, visit: (seq: number, n: number) => void): void {
  for (let at = frame.indexOf('"seq":'); at >= 0; at = frame.indexOf('"seq":', at)) {
    const seq = integerAt(frame, at + 6)
    const idAt = frame.indexOf('"clientMessageId":"m', at)
    if (idAt < 0) throw new Error(`seq ${seq} is no message: ${frame.slice(at - 100, at + 200)}`)
    visit(seq, integerAt(frame, idAt + 20))
    at = idAt
  }
}

/** The conversation of a frame of events or of a head. */
export function conversationIn(frame: string): string {
  const at = frame.indexOf('"conversationId":"') + 18
  return frame.slice(at, frame.indexOf('"', at))
}

export const parseHead = (frame: string): number => integerAt(frame, frame.indexOf('"seq":') + 6)

/** Everybody gets the same bytes: what was read in them once holds for whoever gets the very same. */
export class ReadOnce<Result> {
  readonly #read: (frame: string) => Result
  #known: { bytes: Buffer; result: Result }[] = []

  constructor(read: (frame: string) => Result) {
    this.#read = read
  }

  of(bytes: Buffer, from: number, to: number): Result {
    const payload = bytes.subarray(from, to)
    let known = this.#known.find((one) => one.bytes.equals(payload))
    if (!known) {
      known = { bytes: Buffer.from(payload), result: this.#read(payload.toString('latin1')) }
      this.#known = [known, ...this.#known.slice(0, 7)]
    }
    return known.result
  }
}

/** What kind of frame it is, by its first letters. */
export function kindOf(bytes: Buffer, from: number): 'ok' | 'events' | 'head' | 'other' {
  // {"type":"ok", {"type":"ev… and {"type":"he…
  const [first, second] = [bytes[from + 9], bytes[from + 10]]
  if (first === 111 && second === 107) return 'ok'
  if (first === 101 && second === 118) return 'events'
  return first === 104 && second === 101 ? 'head' : 'other'
}

function integerAt(frame: string, at: number): number {
  let value = 0
  for (let i = at; ; i++) {
    const digit = frame.charCodeAt(i) - 48
    if (!(digit >= 0 && digit <= 9)) return value
    value = value * 10 + digit
  }
}
