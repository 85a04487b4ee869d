// A load balancer in front of several nodes: each TCP connection goes to the next of them that accepts.
import { once } from 'node:events'
import { type AddressInfo, type Socket, connect, createServer } from 'node:net'

export interface RoundRobin {
  url: string
  close(): Promise<void>
}

export async function startRoundRobin(ports: readonly number[], port = 0): Promise<RoundRobin> {
  const open = new Set<Socket>()
  let turn = 0
  const server = createServer((client) => {
    const upstream = connect({ host: '127.0.0.1', port: ports[turn++ % ports.length]!, noDelay: true })
    client.setNoDelay(true)
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => {
        open.delete(socket)
        other.destroy()
      })
    }
    client.pipe(upstream).pipe(client)
  }).listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
