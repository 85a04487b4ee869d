import type { Session } from '../gateway/online-devices.js'

/** A session as a route holds it: `<at> <nodeId> <sessionId>`, with a `-` before it while it is within its grace. Ids have no spaces. */
export interface Route {
  deviceId: string
  /** When it began, by the clock of Redis, µs: of a user's devices that come back together one is still the oldest. */
  at: number
  nodeId: string
  sessionId: string
  hasSocket: boolean
}

export function parseRoute(deviceId: string, value: string): Route {
  const hasSocket = !value.startsWith('-')
  const [at = '', nodeId = '', sessionId = ''] = (hasSocket ? value : value.slice(1)).split(' ')
  return { deviceId, at: Number(at), nodeId, sessionId, hasSocket }
}

/** Of the flat list that a hash is answered as. */
export function parseRoutes(fieldsAndValues: readonly string[]): Route[] {
  const routes: Route[] = []
  for (let i = 0; i + 1 < fieldsAndValues.length; i += 2) routes.push(parseRoute(fieldsAndValues[i]!, fieldsAndValues[i + 1]!))
  return routes
}

/** How a session is known in the list of its node. */
export const memberOf = ({ userId, deviceId, sessionId }: Session) => `${userId} ${deviceId} ${sessionId}`

export function sessionOf(member: string): Session {
  const [userId = '', deviceId = '', sessionId = ''] = member.split(' ')
  return { userId, deviceId, sessionId }
}

/** The part of a route's value that names one session. */
export const tailOf = (nodeId: string, sessionId: string) => ` ${nodeId} ${sessionId}`
