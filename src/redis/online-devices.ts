import type { Logger } from '../domain/logger.js'
import type { OnlineDevices, OnlineState, Session } from '../gateway/online-devices.js'
import { NODE_SESSIONS_TTL_MS, NODE_TTL_MS, ROUTE_TTL_MS, lastSeenKey, nodeSessionsKey, routeKey } from './keys.js'
import { RedisGone, type RedisLink, asRefusal } from './link.js'
import { Nodes } from './nodes.js'
import { type Route, memberOf, parseRoute, parseRoutes, tailOf } from './sessions.js'
import type { RedisSignals } from './signals.js'

const HEARTBEAT_MS = NODE_TTL_MS / 4
const HEARTBEATS_PER_REFRESH = Math.floor(ROUTE_TTL_MS / 3 / HEARTBEAT_MS)
const SWEEP_MS = 200
const BATCH_MAX = 500
/** Ended while Redis was gone, and to be said to it when it is back. */
const ENDED_MAX = 100_000
/** After Redis has come back the other nodes need a moment to write what they know. */
const SETTLE_MS = 4_000
const COMPLAIN_EVERY_MS = 60_000

/** A session of this node. */
interface OwnSession extends Session {
  /** When it began; undefined until Redis has said so. */
  at: number | undefined
}

interface Ended {
  session: Session
  endedAt: number
}

export interface RedisOnlineDevicesOptions {
  link: RedisLink
  signals: RedisSignals
  nodeId: string
  logger: Logger
  graceMs: number
  connectionsPerUserMax: number
}

/**
 * Those of all nodes. A route holds a user's sessions, each with its node; a session counts while its node gives signs of life,
 * so that a node that is killed takes its users offline without a word. Each node writes its own anew, all the time.
 */
export class RedisOnlineDevices implements OnlineDevices {
  readonly #options: RedisOnlineDevicesOptions
  readonly #link: RedisLink
  readonly #nodes: Nodes
  readonly #own = new Map<string, OwnSession>()
  /** By session; in the order in which they ended. */
  readonly #ended = new Map<string, Ended>()
  readonly #timers: NodeJS.Timeout[] = []
  #settling: NodeJS.Timeout | undefined
  #turn = 0
  #isSweeping = false
  #isBeating = false
  /** Redis may not hold all that is true here. */
  #isInDoubt = false
  #complainedAt = -Infinity
  onChange: OnlineDevices['onChange'] = () => {}
  onReplaced: OnlineDevices['onReplaced'] = () => {}
  onDoubt: OnlineDevices['onDoubt'] = () => {}

  constructor(options: RedisOnlineDevicesOptions) {
    const { link, signals, nodeId } = options
    this.#options = options
    this.#link = link
    this.#nodes = new Nodes(link, nodeId)
    this.#nodes.onGone = (sessions, goneNodeId, at) =>
      this.#forget(
        sessions.map((session) => ({ session, endedAt: at })),
        goneNodeId,
      )
    signals.onPresence = ({ userId, online, lastSeenAt }) => this.onChange(userId, { online, lastSeenAt })
    signals.onReplaced = (session) => this.onReplaced(session)
  }

  /** Begins to give signs of life. */
  async start(): Promise<void> {
    this.#link.onUp(() => this.#back())
    await this.#beat()
    this.#timers.push(
      setInterval(() => void this.#beat(), HEARTBEAT_MS),
      setInterval(() => void this.#sweep(), SWEEP_MS),
    )
  }

  /** Its devices have their grace to come back on another node; then the others see to them. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    clearTimeout(this.#settling)
    await this.#nodes.leave(this.#options.graceMs).catch(ignoreGone)
  }

  // --- what happens here ---

  connected({ sessionId, userId, deviceId }: Session): void {
    const session: OwnSession = { sessionId, userId, deviceId, at: undefined }
    this.#own.set(sessionId, session)
    this.#enter([session]).catch((error: unknown) => {
      session.at ??= Date.now() * 1_000
      this.#complain(error)
    })
  }

  disconnected({ sessionId, userId, deviceId }: Session): void {
    if (!this.#own.delete(sessionId)) return
    this.#ended.set(sessionId, { session: { sessionId, userId, deviceId }, endedAt: Date.now() })
    for (const oldest of this.#ended.keys()) {
      if (this.#ended.size <= ENDED_MAX) break
      this.#ended.delete(oldest)
    }
    this.#quietly(
      this.#link.batch(({ script }) => script('leave', [routeKey(userId)], [deviceId, tailOf(this.#options.nodeId, sessionId)])),
    )
  }

  /** Writes that these are here, and sees who else is. */
  async #enter(sessions: readonly OwnSession[]): Promise<void> {
    if (sessions.length === 0) return
    const { nodeId } = this.#options
    const answers = (
      await this.#link.batch(({ redis, script }) => {
        redis.sadd(nodeSessionsKey(nodeId), ...sessions.map(memberOf)).pexpire(nodeSessionsKey(nodeId), NODE_SESSIONS_TTL_MS)
        for (const { userId, deviceId, sessionId, at } of sessions)
          script('enter', [routeKey(userId)], [deviceId, tailOf(nodeId, sessionId), at ?? ''])
      })
    ).slice(2) as [string, string[]][]
    const entered = sessions.map((session, i) => ({ session, at: answers[i]?.[0] ?? '', before: parseRoutes(answers[i]?.[1] ?? []) }))
    const alive = await this.#nodes.alive(entered.flatMap(({ before }) => before))
    for (const { session, at, before } of entered) {
      const isNew = session.at === undefined
      if (at === '') this.onReplaced(session)
      else session.at = Number(at)
      const living = before.filter((route) => alive.has(route.nodeId))
      if (living.length === 0) this.#announce(session.userId, { online: true, lastSeenAt: null })
      if (isNew) this.#makeRoom(session, living)
    }
  }

  /** One connection a device and a bounded number a user, over all nodes: the older ones make room. */
  #makeRoom({ userId, deviceId, sessionId }: Session, before: readonly Route[]): void {
    const others = before.filter((route) => route.hasSocket && route.sessionId !== sessionId)
    const rest = others.filter((route) => route.deviceId !== deviceId).sort((one, other) => one.at - other.at)
    const surplus = rest.slice(0, Math.max(0, rest.length + 1 - this.#options.connectionsPerUserMax))
    for (const route of [...others.filter((other) => other.deviceId === deviceId), ...surplus]) {
      const old = { userId, deviceId: route.deviceId, sessionId: route.sessionId }
      if (route.nodeId === this.#options.nodeId) this.onReplaced(old)
      else this.#options.signals.sendTo(route.nodeId, { type: 'replaced', ...old })
    }
  }

  /** Forgets those whose grace is over, and those whose end could not be said before. */
  async #sweep(): Promise<void> {
    if (this.#isSweeping || !this.#link.isUp) return
    this.#isSweeping = true
    const until = Date.now() - this.#options.graceMs
    const due: Ended[] = []
    for (const ended of this.#ended.values()) {
      if (ended.endedAt > until || due.length === BATCH_MAX) break
      due.push(ended)
    }
    if (due.length > 0) await this.#forgetOwn(due)
    this.#isSweeping = false
  }

  async #forgetOwn(due: readonly Ended[]): Promise<void> {
    try {
      await this.#forget(due, this.#options.nodeId)
      for (const { session } of due) this.#ended.delete(session.sessionId)
    } catch (error) {
      this.#complain(error)
    }
  }

  /** Sessions of a node are over; users who have no other are offline. */
  async #forget(ended: readonly Ended[], nodeId: string): Promise<void> {
    const answers = (await this.#link.batch(({ redis, script }) => {
      for (const {
        session: { userId, deviceId, sessionId },
        endedAt,
      } of ended)
        script('forget', [routeKey(userId), lastSeenKey(userId)], [deviceId, tailOf(nodeId, sessionId), endedAt])
      redis.srem(nodeSessionsKey(nodeId), ...ended.map(({ session }) => memberOf(session)))
    })) as (string[] | null)[]
    const forgotten = ended.flatMap(({ session, endedAt }, i) => {
      const rest = answers[i]
      return rest ? [{ userId: session.userId, endedAt, rest: parseRoutes(rest) }] : []
    })
    const alive = await this.#nodes.alive(forgotten.flatMap(({ rest }) => rest))
    for (const { userId, endedAt, rest } of forgotten) {
      if (!rest.some((route) => alive.has(route.nodeId))) this.#announce(userId, { online: false, lastSeenAt: endedAt })
    }
  }

  /** Here and on all other nodes. */
  #announce(userId: string, now: OnlineState): void {
    this.onChange(userId, now)
    this.#options.signals.send({ type: 'presence', userId, ...now })
  }

  // --- signs of life ---

  /** Says that this node lives, writes some of its sessions anew, and sees to nodes that live no more. */
  async #beat(): Promise<void> {
    if (this.#isBeating || !this.#link.isUp) return
    this.#isBeating = true
    try {
      const isAsBefore = (await this.#nodes.beat()) && !this.#isInDoubt
      this.#isInDoubt = false
      await this.#refresh(isAsBefore ? this.#nextSome() : [...this.#own.values()])
      await this.#nodes.buryDead()
    } catch (error) {
      this.#isInDoubt = true
      this.#complain(error)
    } finally {
      this.#isBeating = false
    }
  }

  /** All of them within a third of the time for which a route lives. */
  #nextSome(): OwnSession[] {
    const sessions = [...this.#own.values()]
    this.#turn = (this.#turn + 1) % HEARTBEATS_PER_REFRESH
    const size = Math.ceil(sessions.length / HEARTBEATS_PER_REFRESH)
    return sessions.slice(this.#turn * size, (this.#turn + 1) * size)
  }

  async #refresh(sessions: readonly OwnSession[]): Promise<void> {
    for (let at = 0; at < sessions.length; at += BATCH_MAX)
      await this.#enter(sessions.slice(at, at + BATCH_MAX).filter(({ sessionId }) => this.#own.has(sessionId)))
  }

  /** Redis may have lost everything, or nothing: what is true here is written, and then what was missed is looked for. */
  #back(): void {
    this.#isInDoubt = true
    void this.#beat()
    clearTimeout(this.#settling)
    this.#settling = setTimeout(() => this.onDoubt(), SETTLE_MS)
  }

  // --- what is asked ---

  async find(userIds: readonly string[]): Promise<OnlineState[]> {
    const states: OnlineState[] = []
    for (let at = 0; at < userIds.length; at += BATCH_MAX) states.push(...(await this.#findSome(userIds.slice(at, at + BATCH_MAX))))
    return states
  }

  async #findSome(userIds: readonly string[]): Promise<OnlineState[]> {
    return this.#orRefusal(async () => {
      const answers = await this.#link.batch(({ redis }) => {
        for (const userId of userIds) redis.hvals(routeKey(userId)).zrange(lastSeenKey(userId), 0, 0, 'REV', 'WITHSCORES')
      })
      const routes = userIds.map((_, i) => (answers[2 * i] as string[]).map((value) => parseRoute('', value)))
      const alive = await this.#nodes.alive(routes.flat())
      return routes.map((own, i) =>
        stateOf(
          own.some(({ nodeId }) => alive.has(nodeId)),
          (answers[2 * i + 1] as string[])[1],
        ),
      )
    })
  }

  async findDevices(userId: string, deviceIds: readonly string[]): Promise<OnlineState[]> {
    if (deviceIds.length === 0) return []
    return this.#orRefusal(async () => {
      const [values, lastSeen] = (await this.#link.batch(({ redis }) => {
        redis.hmget(routeKey(userId), ...deviceIds).zmscore(lastSeenKey(userId), ...deviceIds)
      })) as [(string | null)[], (string | null)[]]
      const routes = values.map((value) => (value === null ? undefined : parseRoute('', value)))
      const alive = await this.#nodes.alive(routes.filter((route) => route !== undefined))
      return routes.map((route, i) => stateOf(route !== undefined && alive.has(route.nodeId), lastSeen[i]))
    })
  }

  async #orRefusal<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    try {
      return await ask()
    } catch (error) {
      throw asRefusal(error)
    }
  }

  #quietly(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#complain(error))
  }

  /** That Redis is gone was said once already; a Redis that says no does so often. */
  #complain(error: unknown): void {
    const now = performance.now()
    if (error instanceof RedisGone || now - this.#complainedAt < COMPLAIN_EVERY_MS) return
    this.#complainedAt = now
    this.#options.logger.error({ err: error }, 'presence could not be kept')
  }
}

const stateOf = (online: boolean, lastSeen: string | null | undefined): OnlineState => ({
  online,
  lastSeenAt: online || lastSeen == null ? null : Number(lastSeen),
})

function ignoreGone(error: unknown): void {
  if (!(error instanceof RedisGone)) throw error
}
