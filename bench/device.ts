/**
 * A device as light as it gets, so that one process is hundreds of them: a plain socket, frames cut out by hand and
 * handed on as bytes, all that is sent in a turn in one write.
 */
import { randomBytes } from 'node:crypto'
import { type Socket, connect } from 'node:net'

/** One for all: a read is handed on before the next one begins. */
const readBuffer = Buffer.allocUnsafe(512 * 1024)

const TEXT = 1
const CLOSE = 8
const PING = 9
const PONG = 10

export type OnText = (bytes: Buffer, from: number, to: number, at: number) => void

export class Device {
  /** Of each text frame, with the time at which its bytes were read. Valid during the call only. */
  onText: OnText = () => {}
  onClose: (code: number) => void = (code) => {
    throw new Error(`a connection was closed with ${code}`)
  }
  readonly #socket: Socket
  readonly #key = randomBytes(4)
  readonly #opened: Promise<void>
  #open!: () => void
  #isOpen = false
  #pending: Buffer[] = []
  #pendingBytes = 0
  #neededBytes = 2
  #queue: string[] = []
  #queuedCharacters = 0
  #isReading = false

  private constructor(url: string) {
    const { hostname, port } = new URL(url)
    this.#opened = new Promise((resolve) => {
      this.#open = resolve
    })
    this.#socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      onread: { buffer: readBuffer, callback: (bytes) => this.#read(bytes) },
    })
    this.#socket.on('error', () => this.#closed(0))
    this.#socket.on('close', () => this.#closed(0))
    const key = randomBytes(16).toString('base64')
    this.#socket.write(
      `GET /v1/ws HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
    )
  }

  static async open(url: string): Promise<Device> {
    const device = new Device(url)
    await device.#opened
    return device
  }

  /** Says hello and gives the fields of the answer. What comes after it goes to `onText`. */
  async hello(fields: object): Promise<{ position: string; recovered: boolean }> {
    const ok = await this.ask<{ type: string; position: string; recovered: boolean }>({ type: 'hello', ...fields })
    if (ok.type !== 'ok') throw new Error(`hello was answered with ${JSON.stringify(ok)}`)
    return ok
  }

  /** Sends a frame with ref 0, which no message has, and gives the answer. One at a time; all else goes to `onText`. */
  ask<Answer>(frame: object): Promise<Answer> {
    const { onText } = this
    const answer = new Promise<Answer>((resolve) => {
      this.onText = (bytes, from, to, at) => {
        const parsed = JSON.parse(bytes.toString('utf8', from, to)) as Answer & { ref?: number }
        if (parsed.ref !== 0) return onText(bytes, from, to, at)
        this.onText = onText
        resolve(parsed)
      }
    })
    this.send(JSON.stringify({ ...frame, ref: 0 }))
    return answer
  }

  /** Queues a frame of ASCII text; from within `onText` all leave together when the read is done. */
  send(json: string): void {
    this.#queue.push(json)
    this.#queuedCharacters += json.length
    if (!this.#isReading) this.#flush()
  }

  close(): void {
    this.onClose = () => {}
    this.#socket.destroy()
  }

  #closed(code: number): void {
    const { onClose } = this
    this.onClose = () => {}
    onClose(code)
  }

  /** Masked as clients must: the server's share of the work stays what it is. */
  #flush(): void {
    const queue = this.#queue
    if (queue.length === 0) return
    this.#queue = []
    const bytes = Buffer.allocUnsafe(this.#queuedCharacters + queue.length * 8)
    this.#queuedCharacters = 0
    let end = 0
    for (const json of queue) end = this.#writeFrame(bytes, end, 0x80 | TEXT, json)
    this.#socket.write(bytes.subarray(0, end))
  }

  #writeFrame(bytes: Buffer, start: number, first: number, text: string): number {
    const { length } = text
    let at = start
    bytes[at++] = first
    if (length < 126) bytes[at++] = 0x80 | length
    else {
      bytes[at++] = 0x80 | 126
      bytes[at++] = length >> 8
      bytes[at++] = length & 255
    }
    at += this.#key.copy(bytes, at)
    bytes.write(text, at, 'latin1')
    const [a = 0, b = 0, c = 0, d = 0] = this.#key
    const key = [a, b, c, d]
    for (let i = 0; i < length; i++) bytes[at + i]! ^= key[i & 3]!
    return at + length
  }

  #read(count: number): boolean {
    this.#isReading = true
    try {
      this.#take(count)
    } finally {
      this.#isReading = false
      this.#flush()
    }
    return true
  }

  #take(count: number): void {
    const at = performance.now()
    this.#pendingBytes += count
    if (this.#pendingBytes < this.#neededBytes) {
      this.#pending.push(Buffer.from(readBuffer.subarray(0, count)))
      return
    }
    const data =
      this.#pending.length === 0 ? readBuffer.subarray(0, count) : Buffer.concat([...this.#pending, readBuffer.subarray(0, count)])
    const taken = this.#isOpen ? this.#frames(data, 0, at) : this.#handshake(data, at)
    this.#pendingBytes = data.length - taken
    this.#pending = taken === data.length ? [] : [Buffer.from(data.subarray(taken))]
  }

  #handshake(data: Buffer, at: number): number {
    const end = data.indexOf('\r\n\r\n')
    if (end < 0) return 0
    const status = data.toString('latin1', 0, end).split(' ')[1]
    if (status !== '101') throw new Error(`the upgrade was answered with ${status}`)
    this.#isOpen = true
    this.#open()
    return this.#frames(data, end + 4, at)
  }

  /** Hands on whole frames and gives where the rest begins. */
  #frames(data: Buffer, start: number, now: number): number {
    let at = start
    for (;;) {
      this.#neededBytes = 2
      if (data.length - at < 2) return at
      const short = data[at + 1]! & 127
      const header = short < 126 ? 2 : short === 126 ? 4 : 10
      this.#neededBytes = header
      if (data.length - at < header) return at
      const length = short < 126 ? short : short === 126 ? data.readUInt16BE(at + 2) : Number(data.readBigUInt64BE(at + 2))
      this.#neededBytes = header + length
      if (data.length - at < header + length) return at
      const opcode = data[at]! & 15
      const from = at + header
      at = from + length
      if (opcode === TEXT) this.onText(data, from, at, now)
      else if (opcode === PING) this.#pong()
      else if (opcode === CLOSE) this.#closed(data.readUInt16BE(from))
    }
  }

  #pong(): void {
    const bytes = Buffer.allocUnsafe(16)
    this.#socket.write(bytes.subarray(0, this.#writeFrame(bytes, 0, 0x80 | PONG, '')))
  }
}
