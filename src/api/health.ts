import type { FastifyInstance } from 'fastify'
import { unavailable } from '../domain/errors.js'

export interface Health {
  /** A sentence that says why this node can't serve now, or undefined. May throw or never end: both count as not ready. */
  findFault(): Promise<string | undefined>
}

const CHECK_MS_MAX = 2_000

/** `live`: the process answers. `ready`: log and read models do, too. */
export function healthRoutes(app: FastifyInstance, health: Health): void {
  app.get('/health/live', { schema: { hide: true } }, async () => ({ status: 'ok' }))
  app.get('/health/ready', { schema: { hide: true } }, async () => {
    const fault = await withinTime(health.findFault()).catch(() => 'The log or the read models do not answer.')
    if (fault !== undefined) throw unavailable(fault)
    return { status: 'ok' }
  })
}

async function withinTime<Value>(checking: Promise<Value>): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error('late')), CHECK_MS_MAX)
  })
  return Promise.race([checking, late]).finally(() => clearTimeout(timer))
}
