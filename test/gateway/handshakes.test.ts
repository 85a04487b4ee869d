import { expect, test } from 'vitest'
import WebSocket from 'ws'
import { useServer } from '../support/app-server.js'

const world = useServer({ env: { HANDSHAKES_PER_ADDRESS: '2', HANDSHAKES_MAX: '4', TRUST_PROXY: '127.0.0.1' } })

/** Opens a socket that comes from an address by way of a proxy; gives it, or the answer to its upgrade. */
function openFrom(address: string): Promise<WebSocket | { status: number; retryAfter: string | undefined }> {
  const socket = new WebSocket(`${world().url.replace('http', 'ws')}/v1/ws`, { headers: { 'x-forwarded-for': address } })
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(socket))
    socket.once('unexpected-response', (_request, { statusCode, headers }) => {
      resolve({ status: statusCode!, retryAfter: headers['retry-after'] })
      socket.terminate()
    })
    socket.once('error', reject)
  })
}
const tooMany = { status: 429, retryAfter: '1' }
const answerOf = async (socket: WebSocket) => JSON.parse(String(await new Promise((resolve) => socket.once('message', resolve)))) as object
const closed = (socket: WebSocket) => new Promise((resolve) => socket.once('close', resolve).terminate())

test('sockets without hello are bounded for each address and for the node, until hello is answered or they are closed', async () => {
  const opened = [await openFrom('198.51.100.1'), await openFrom('198.51.100.1')] as WebSocket[]
  expect(await openFrom('198.51.100.1')).toEqual(tooMany)
  // What a client says of itself is not believed: the proxy names it last.
  expect(await openFrom('203.0.113.9, 198.51.100.1')).toEqual(tooMany)
  opened.push((await openFrom('198.51.100.2')) as WebSocket, (await openFrom('198.51.100.3')) as WebSocket)
  expect(await openFrom('198.51.100.4')).toEqual(tooMany)

  opened[0]!.send(JSON.stringify({ type: 'hello', ref: 1, token: world().user().token }))
  expect(await answerOf(opened[0]!)).toMatchObject({ type: 'ok', ref: 1 })
  opened.push((await openFrom('198.51.100.1')) as WebSocket)
  expect(await openFrom('198.51.100.1')).toEqual(tooMany)

  await closed(opened[1]!)
  const again = await openFrom('198.51.100.1')
  expect(again).toBeInstanceOf(WebSocket)
  for (const socket of [...opened, again as WebSocket]) socket.terminate()
})
