import { Refusal, isOutage } from '../../src/domain/errors.js'
import { type Request, describe } from './answer-check.js'
import { callOf } from './calls.js'
import { type DeviceParts, SimulatedDevice, frameOf } from './device.js'
import type { Random } from './random.js'

/** Sends again after this, as long as it does not know. */
const RETRY_MS = [50, 2_000] as const

/** A user with its devices: whatever it sends it sends until it knows what became of it. */
export class SimulatedUser {
  readonly userId: string
  readonly devices: SimulatedDevice[]
  readonly #parts: DeviceParts
  readonly #random: Random
  /** Sends whose outcome it does not know. */
  readonly unsettled = new Map<string, Request>()
  /** Everything asked for that has no answer yet. */
  readonly open = new Set<Request>()
  /** Of its last write. */
  lastPosition: string | undefined
  #pickNode: () => Request['node'] | undefined

  constructor(userId: string, deviceCount: number, parts: DeviceParts, random: Random, pickNode: () => Request['node'] | undefined) {
    this.userId = userId
    this.#parts = parts
    this.#random = random
    this.#pickNode = pickNode
    this.devices = Array.from({ length: deviceCount }, (_, i) => new SimulatedDevice(`d${i}`, this, parts, random))
  }

  /** Asks by a socket where it has one and the socket knows how, or by REST. */
  ask(request: Request, device?: SimulatedDevice): void {
    const frame = device?.state === 'on' ? frameOf(request) : undefined
    this.#parts.world.note(() => describe(request))
    this.open.add(request)
    if (request.kind === 'send') this.unsettled.set(keyOf(request), request)
    if (device && frame) device.request(request, frame)
    else void this.#call(request)
  }

  async #call(request: Request): Promise<void> {
    const { world, answers } = this.#parts
    const { node } = request
    await world.clock.delay(this.#random.between(0.1, 5))
    if (node.weather.isDead) return this.onLost(request)
    try {
      const answer = (await node.rest.call(callOf(request))) as { position?: string; seq?: number }
      if (node.weather.isDead) return
      answers.answered(request, answer)
      await world.clock.delay(this.#random.between(0.1, 5))
      this.onSettled(request, { ok: answer })
    } catch (error) {
      if (node.weather.isDead) return
      const refusal = refusalOf(error)
      if (refusal) answers.refused(request, refusal.code, refusal.message)
      else world.report('internal', `${describe(request)}: ${(error as Error).stack}`)
      this.onSettled(request, { error: { code: refusal?.code ?? 'internal' } })
    }
  }

  onSettled(request: Request, { ok, error }: { ok?: { position?: string }; error?: { code: string } }): void {
    this.#parts.world.note(() => `  ${describe(request)} → ${error?.code ?? JSON.stringify(ok).slice(0, 300)}`)
    this.open.delete(request)
    if (ok?.position !== undefined && request.kind !== 'conversation') this.lastPosition = ok.position
    if (request.kind !== 'send') return
    if (error?.code === 'unavailable' || error?.code === 'rate_limited') this.#retry(request)
    else if (this.unsettled.get(keyOf(request)) === request) this.unsettled.delete(keyOf(request))
  }

  onLost(request: Request): void {
    this.#parts.world.note(() => `  ${describe(request)} is lost`)
    this.open.delete(request)
    if (request.kind === 'send') this.#retry(request)
  }

  #retry(request: Request): void {
    const { clock } = this.#parts.world
    clock.at(clock.now + this.#random.between(...RETRY_MS), () => {
      if (this.unsettled.get(keyOf(request)) !== request) return
      const node = this.#pickNode()
      if (!node) return this.#retry(request)
      const device = this.devices.find(({ state }) => state === 'on')
      const again: Request = { ...request, at: clock.now, node, way: 'rest' }
      if (device && this.#random.chance(0.5)) this.ask({ ...again, node: device.node!, way: 'socket' }, device)
      else this.ask(again)
    })
  }

  /** The node is gone: what it was asked by REST has no answer any more. */
  lose(node: Request['node']): void {
    for (const request of this.open) if (request.node === node && request.way === 'rest') this.onLost(request)
  }
}

const keyOf = ({ conversationId, clientMessageId }: Request) => `${conversationId} ${clientMessageId}`

/** As the API answers an error: what is away is `unavailable`, all else that is no refusal is a bug. */
function refusalOf(error: unknown): { code: string; message: string } | undefined {
  if (error instanceof Refusal) return error
  return isOutage(error) ? { code: 'unavailable', message: String(error) } : undefined
}
