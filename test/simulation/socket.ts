import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { Frame } from '../support/device.js'
import type { Clock } from './clock.js'
import type { Random } from './random.js'

/** `ws` gives up on a peer that does not answer a close after this. */
const CLOSE_TIMEOUT_MS = 30_000

/** What the device at the other end hears. */
export interface Listener {
  /** As the server wrote it, at that moment: for those who check. */
  onWritten(frame: Frame): void
  /** When it has arrived. */
  onFrame(frame: Frame): void
  onClosed(code: number): void
}

/** The server's half of a socket, as much of it as `Connection` and `Gateway` use. */
class ServerSocket extends EventEmitter {
  readonly OPEN = 1
  readyState = 1
  isPaused = false
  readonly #line: Line

  constructor(line: Line) {
    super()
    this.#line = line
  }

  close(code: number): void {
    if (this.readyState > 1) return
    this.readyState = 2
    this.#line.closedByServer(code)
  }

  terminate(): void {
    this.#line.endServer(1006)
  }

  ping(): void {
    this.#line.pinged()
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.#line.deliverToServer()
  }
}

class ServerStream extends EventEmitter {
  writable = true
  writableLength = 0
  readonly #line: Line

  constructor(line: Line) {
    super()
    this.#line = line
  }

  write(bytes: Buffer): boolean {
    if (!this.writable) return false
    this.writableLength += bytes.length
    this.#line.written(bytes)
    return this.writableLength < 16_384
  }

  destroy(): void {
    this.#line.endServer(1006)
  }
}

/** A connection between a device and a node: bytes travel in order and take their time, until one side closes it or the line is cut. */
export class Line {
  readonly #clock: Clock
  readonly #random: Random
  readonly #listener: Listener
  readonly #ws: ServerSocket
  readonly #stream: ServerStream
  readonly #slowMs: number
  #toServer: string[] = []
  #arrivesAtServer = 0
  #arrivesAtDevice = 0
  #isCut = false
  #hasServerEnded = false
  /** The device reads nothing until then. */
  readsFrom = 0

  constructor(clock: Clock, random: Random, listener: Listener) {
    this.#clock = clock
    this.#random = random
    this.#listener = listener
    this.#ws = new ServerSocket(this)
    this.#stream = new ServerStream(this)
    this.#slowMs = random.chance(0.2) ? random.between(20, 300) : random.between(0.1, 10)
  }

  get ws(): WebSocket {
    return this.#ws as unknown as WebSocket
  }

  get stream(): Duplex {
    return this.#stream as unknown as Duplex
  }

  // --- the device's side ---

  say(frame: object): void {
    if (this.#isCut) return
    const text = JSON.stringify(frame)
    this.#arrivesAtServer = Math.max(this.#arrivesAtServer, this.#clock.now + this.#latencyMs())
    this.#clock.at(this.#arrivesAtServer, () => {
      this.#toServer.push(text)
      this.deliverToServer()
    })
  }

  /** The device closes, or is gone without a word: then the server finds out by itself. */
  cut({ isNoticed }: { isNoticed: boolean }): void {
    if (this.#isCut) return
    this.#isCut = true
    if (isNoticed) this.#clock.at(this.#clock.now + this.#latencyMs(), () => this.endServer(1005))
  }

  // --- the server's side ---

  deliverToServer(): void {
    while (this.#toServer.length > 0 && !this.#ws.isPaused && this.#ws.readyState === 1)
      this.#ws.emit('message', Buffer.from(this.#toServer.shift()!), false)
  }

  written(bytes: Buffer): void {
    const frames = framesIn(bytes)
    for (const frame of frames) this.#listener.onWritten(frame)
    const { length } = bytes
    this.#arrivesAtDevice = Math.max(this.#arrivesAtDevice, this.#clock.now + this.#latencyMs(), this.readsFrom)
    this.#clock.at(this.#arrivesAtDevice, () => this.#arrive(frames, length))
  }

  #arrive(frames: readonly Frame[], length: number): void {
    if (this.#clock.now < this.readsFrom - 0.001) return this.#clock.at(this.readsFrom, () => this.#arrive(frames, length))
    if (this.#isCut) return
    for (const frame of frames) this.#listener.onFrame(frame)
    this.#stream.writableLength -= length
    if (this.#stream.writableLength === 0) this.#stream.emit('drain')
  }

  pinged(): void {
    this.#clock.at(this.#clock.now + 2 * this.#latencyMs(), () => {
      if (!this.#isCut && !this.#hasServerEnded) this.#ws.emit('pong')
    })
  }

  closedByServer(code: number): void {
    if (this.#isCut) return this.#clock.at(this.#clock.now + CLOSE_TIMEOUT_MS, () => this.endServer(code))
    const at = Math.max(this.#arrivesAtDevice, this.#clock.now + this.#latencyMs(), this.readsFrom)
    this.#clock.at(at, () => this.#closeDevice(code))
    this.#clock.at(at + this.#latencyMs(), () => this.endServer(code))
  }

  /** The server's half is over, whatever the device knows. */
  endServer(code: number): void {
    if (this.#hasServerEnded) return
    this.#hasServerEnded = true
    this.#ws.readyState = 3
    this.#stream.writable = false
    this.#clock.at(this.#clock.now, () => {
      this.#stream.emit('close')
      this.#ws.emit('close', code)
    })
    this.#clock.at(Math.max(this.#arrivesAtDevice, this.#clock.now) + this.#latencyMs(), () => this.#closeDevice(code))
  }

  #closeDevice(code: number): void {
    if (this.#isCut) return
    this.#isCut = true
    this.#listener.onClosed(code)
  }

  #latencyMs(): number {
    return this.#random.between(0.1, 1) * this.#slowMs
  }
}

/** The frames that a server wrote: unmasked and never in fragments. */
function framesIn(bytes: Buffer): Frame[] {
  const frames: Frame[] = []
  for (let at = 0; at < bytes.length; ) {
    const short = bytes[at + 1]!
    const [header, length] =
      short < 126 ? [2, short] : short === 126 ? [4, bytes.readUInt16BE(at + 2)] : [10, Number(bytes.readBigUInt64BE(at + 2))]
    frames.push(JSON.parse(bytes.toString('utf8', at + header, at + header + length)) as Frame)
    at += header + length
  }
  return frames
}
