import type { Stream } from 'node:stream'

interface Handle {
  bytesWritten?: number
  writeQueueSize?: number
}

/**
 * How many bytes of what was written to a socket the system has taken: it grows while the other side reads, also in the middle of
 * a large write, of which the stream says nothing. Node's own time-out of sockets looks there too, but what arrives resets that.
 */
export function bytesTakenOf(socket: Stream): number {
  const { bytesWritten = 0, writeQueueSize = 0 } = (socket as Stream & { _handle?: Handle | null })._handle ?? {}
  return bytesWritten - writeQueueSize
}
