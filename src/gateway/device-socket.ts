import { WebSocket } from 'ws'

/** By RFC 6455; the library has 1008 for too many fragments. */
const POLICY = 1008
const TOO_LARGE = 1009

/** A server's WebSocket that can still say something before it closes because a message is too large. */
export class DeviceSocket extends WebSocket {
  beforeTooLarge: () => void = () => {}

  override close(code?: number, reason?: string | Buffer): void {
    // The server itself closes with neither: both come from the library, when it refuses what it reads.
    const isTooLarge = code === POLICY || code === TOO_LARGE
    if (isTooLarge) this.beforeTooLarge()
    super.close(isTooLarge ? TOO_LARGE : code, reason)
  }
}
