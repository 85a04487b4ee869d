import type { Connection } from './connection.js'
import { closeCodes } from './frames.js'

/** What may wait for the devices of one user, and for all of this node. */
export const USER_UNSENT_BYTES_MAX = 4 << 20
export const NODE_UNSENT_BYTES_MAX = 128 << 20
export const UNSENT_LOOK_MS = 250

/**
 * Looks at what waits for sockets that do not read: closes those that have stalled and, over the bound of a user or of the node,
 * those with the most. One that is closed already and still has the most is cut off without more words.
 */
export function relieve(connections: Iterable<Unsent>, now: number, stalledMs: number): void {
  const waiting: Waiting[] = []
  const ofUsers = new Map<string, Waiting[]>()
  for (const connection of connections) {
    connection.closeStalled(now, stalledMs)
    const bytes = connection.unsentBytes
    if (bytes === 0) continue
    waiting.push({ connection, bytes })
    const own = ofUsers.get(connection.userId)
    if (own) own.push({ connection, bytes })
    else ofUsers.set(connection.userId, [{ connection, bytes }])
  }
  for (const [userId, own] of ofUsers) if (userId !== '') closeLargest(own, USER_UNSENT_BYTES_MAX)
  closeLargest(waiting, NODE_UNSENT_BYTES_MAX)
}

type Unsent = Pick<Connection, 'userId' | 'isOpen' | 'unsentBytes' | 'closeStalled' | 'refuse' | 'terminate'>

interface Waiting {
  connection: Unsent
  bytes: number
}

function closeLargest(waiting: readonly Waiting[], bytesMax: number): void {
  let sum = waiting.reduce((total, { bytes }) => total + bytes, 0)
  if (sum <= bytesMax) return
  for (const { connection, bytes } of [...waiting].sort((a, b) => b.bytes - a.bytes)) {
    if (sum <= bytesMax) return
    sum -= bytes
    if (connection.isOpen) connection.refuse(closeCodes.tooSlow, undefined)
    else connection.terminate()
  }
}
