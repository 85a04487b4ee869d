import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** A TCP proxy that can be cut, and that can lose what the server answers: the request arrives, the acknowledgement does not. */
export interface LossyProxy {
  port: number
  /** Counts the connections that it has taken. */
  readonly taken: number
  /** The connections that are open now answer nothing more; each is cut when it should have answered. */
  loseNextAnswers(): void
  /** Breaks every connection in the middle of whatever it carries, and takes none until it is mended. */
  cut(): void
  /** From now on nothing comes through, in neither direction, and no connection breaks: a line that drops every packet. Until it is mended, then all are new. */
  swallow(): void
  mend(): void
  /** New connections go to another server. */
  leadTo(port: number): void
  close(): Promise<void>
}

export async function startLossyProxy(targetPort: number): Promise<LossyProxy> {
  const lossy = new Set<Socket>()
  const open = new Set<Socket>()
  let isCut = false
  let swallows = false
  let target = targetPort
  let taken = 0
  const breakAll = () => {
    for (const socket of open) socket.resetAndDestroy()
  }
  const server = createServer((client) => {
    if (isCut) return void client.resetAndDestroy()
    taken += 1
    const upstream = connect(target, '127.0.0.1')
    for (const socket of [client, upstream]) {
      open.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        open.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
    client.on('data', (bytes) => swallows || upstream.write(bytes))
    upstream.on('data', (bytes) => {
      if (lossy.has(client)) client.destroy()
      else if (!swallows) client.write(bytes)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    get taken() {
      return taken
    },
    loseNextAnswers: () => {
      for (const socket of open) lossy.add(socket)
    },
    cut: () => {
      isCut = true
      breakAll()
    },
    swallow: () => {
      swallows = true
    },
    mend: () => {
      if (swallows) breakAll()
      swallows = false
      isCut = false
    },
    leadTo: (to) => {
      target = to
    },
    close: async () => {
      breakAll()
      server.close()
      await once(server, 'close')
    },
  }
}
