import { type IncomingMessage, STATUS_CODES, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { type RefusalCode, refusals } from '../domain/errors.js'
import { type Origins, isOfHost } from '../origins.js'

const WEBSOCKET_PATH = '/v1/ws'
const notPassedOn = new Set(['connection', 'upgrade', 'http2-settings'])
/** A client that was refused has so long to read the answer and close. */
const REFUSED_MS_MAX = 2_000

/** Why a connection does not become a WebSocket. */
export interface UpgradeRefusal {
  code: RefusalCode
  detail: string
  headers?: Record<string, string>
}

/** What is wrong with a request to become a WebSocket, but for its handshake. */
export function refusalOfUpgrade(request: IncomingMessage, origins: Origins): UpgradeRefusal | undefined {
  const path = (request.url ?? '').split('?', 1)[0]
  if (path !== WEBSOCKET_PATH) return { code: 'not_found', detail: `WebSockets are at ${WEBSOCKET_PATH}.` }
  if (request.method !== 'GET') return { code: 'method_not_allowed', detail: 'A WebSocket begins with GET.', headers: { Allow: 'GET' } }
  if (!isOriginAllowed(request, origins)) {
    const detail = `This origin is neither in ALLOWED_ORIGINS nor of this host, which a proxy must hand on in "Host".`
    return { code: 'forbidden', detail }
  }
  return undefined
}

/** Answers as over HTTP, and closes: the server of Node.js has left the connection, so a client that never closes it is cut off here. */
export function refuseUpgrade(socket: Duplex, { code, detail, headers = {} }: UpgradeRefusal, publicUrl = ''): void {
  const { status, title, temporary } = refusals[code]
  const body = JSON.stringify({ type: `${publicUrl}/docs/errors#${code}`, title, status, code, detail, temporary })
  const fields = {
    Connection: 'close',
    ...(temporary ? { 'Retry-After': '1' } : {}),
    ...headers,
    'Content-Type': 'application/problem+json',
    'Content-Length': `${Buffer.byteLength(body)}`,
  }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`)
  // Throws away what the client still sends, so that its end is noticed.
  socket.resume()
  const cutting = setTimeout(() => socket.destroy(), REFUSED_MS_MAX)
  socket.once('close', () => clearTimeout(cutting))
}

/** Whether the protocol that it offers is this one. */
export const wantsWebSocket = ({ headers }: IncomingMessage): boolean => headers.upgrade?.toLowerCase() === 'websocket'

/**
 * Serves a request as if it had not offered another protocol, as HTTP allows: Java's HttpClient and `curl --http2` offer h2c
 * with whatever they ask. Node.js has left the connection by now, so it is handed back with the request written anew.
 */
export function serveWithoutUpgrade(server: Server, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const { method, url, httpVersion, rawHeaders } = request
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let at = 0; at < rawHeaders.length; at += 2)
    if (!notPassedOn.has(rawHeaders[at]!.toLowerCase())) lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`)
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  server.emit('connection', socket)
}

function isOriginAllowed({ headers }: IncomingMessage, origins: Origins): boolean {
  const { origin, host } = headers
  return origin === undefined || origins.isAllowed(origin) || isOfHost(origin, host)
}
