/** The raw limit of (b): one frame, built once, written to every socket again and again, as fast as they take it. */
import type { Duplex } from 'node:stream'
import { WebSocket } from 'ws'
import { eventsFrame } from '../../src/gateway/frames.js'
import { serveUntilStopped } from './parts.js'

const [sockets = 0, eventsPerFrame = 0] = process.argv.slice(2).map(Number)
const QUEUED_BYTES_MAX = 64 * 1024

const event = (seq: number) =>
  `{"conversationId":"g-0123456789012345678901","seq":${seq},"type":"MessageSent","at":"2025-01-01T00:00:00.000Z","actor":{"userId":"u1"},"data":{"clientMessageId":"m${seq}","ordinal":${seq},"content":{"type":"text","text":"${'x'.repeat(100)}"}},"position":"0000000000001000","head":${seq}}`
const frame = eventsFrame(
  Array.from({ length: eventsPerFrame }, (_, i) => event(1_000 + i)),
  '0000000000001000.Ab3dE_9x',
)

const open = new Set<Duplex>()

function broadcast(): void {
  for (const socket of open) if (socket.writableLength < QUEUED_BYTES_MAX) socket.write(frame)
  setImmediate(broadcast)
}

await serveUntilStopped((ws) => {
  if (!(ws instanceof WebSocket)) return
  // The socket under it: what is shared is written as it is.
  const socket = (ws as unknown as { _socket: Duplex })._socket
  ws.on('error', () => {})
  ws.on('close', () => open.delete(socket))
  open.add(socket)
  if (open.size === sockets) broadcast()
})
process.exit(0)
