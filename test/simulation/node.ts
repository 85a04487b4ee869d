import type { Authenticator } from '../../src/domain/caller.js'
import { Conversations } from '../../src/domain/conversations.js'
import type { EventStore } from '../../src/domain/event-store.js'
import type { Logger } from '../../src/domain/logger.js'
import { followStates } from '../../src/domain/state-follower.js'
import { Users } from '../../src/domain/users.js'
import { Gateway } from '../../src/gateway/gateway.js'
import { Load } from '../../src/load/load.js'
import { LocalOnlineDevices } from '../../src/gateway/local-online-devices.js'
import { noSignals } from '../../src/gateway/signals.js'
import { InMemoryEventStore } from '../support/in-memory-event-store.js'
import { SimulatedReadModels } from './read-models.js'
import { Rest } from './rest.js'
import type { Line } from './socket.js'
import { unreliable } from './unreliable-store.js'
import { Weather } from './weather.js'
import type { World } from './world.js'

/** A stop takes at most this. */
const STOP_WITHIN_MS = 15_000
const MEMBERS_MAX = 100_000
const CACHE_WEIGHT_MAX = 2_000_000

export interface NodeOptions {
  fanoutOnWriteMembersMax: number
  /** How likely an answer takes long. */
  slowness: number
  /** Breaks the store, where that is wanted. */
  sabotage: (store: EventStore) => EventStore
}

/** One node of the product: everything between socket, store and read models is the real thing. */
export class SimulatedNode {
  readonly name: string
  readonly weather: Weather
  readonly readModels: SimulatedReadModels
  readonly gateway: Gateway
  readonly rest: Rest
  readonly users: Users
  readonly conversations: Conversations
  isUp = false
  /** How far its live feed was, and since when. */
  readonly #fed: { at: number; place: number }[] = []
  /** When it acknowledged a recall or a removal, by `<conversation>:<seq>`. */
  readonly #acknowledged = new Map<string, number>()
  readonly #lines = new Set<Line>()
  readonly #world: World
  readonly #store: EventStore

  constructor(name: string, world: World, { fanoutOnWriteMembersMax, slowness, sabotage }: NodeOptions) {
    this.name = name
    this.#world = world
    const { clock, random, log, tables } = world
    this.weather = new Weather(clock, random, slowness)
    const inner = new InMemoryEventStore(log)
    const store = sabotage(unreliable(inner, this.weather, clock, world.appended))
    this.#store = store
    this.readModels = new SimulatedReadModels(tables, this.weather, () => log.head())
    this.readModels.applied.isOwn = true
    this.readModels.applied.set(tables.position)
    const logger = this.#loggerOf(world)
    const snapshots = world.snapshotsFor(this.weather)
    const shared = { store, snapshots, logger, isShared: true, cacheWeightMax: CACHE_WEIGHT_MAX }
    this.users = new Users(shared)
    this.conversations = new Conversations({
      ...shared,
      history: this.readModels.history,
      users: this.users,
      membersMax: MEMBERS_MAX,
    })
    const { users, conversations, readModels } = this
    this.gateway = new Gateway({
      store,
      conversations,
      users,
      readModels,
      logger,
      fanoutOnWriteMembersMax,
      authenticator: trusting(),
      online: new LocalOnlineDevices({ graceMs: 5e3 }),
      signals: noSignals(),
      load: new Load({
        now: () => clock.now,
        userUnitsPerSecond: 1e9,
      }),
      handshakes: {
        perAddressMax: 0,
        max: 0,
        trustedProxies: [],
      },
      framesPerSecond: undefined,
      allowedOrigins: [],
    })
    const { hub, presence } = this.gateway
    this.rest = new Rest({ conversations, users, readModels, presence, store, feed: hub, jwtSecret: '' })
    hub.onEvents = (events) => {
      followStates(events, conversations, users)
      this.#fed.push({ at: clock.now, place: world.truth.placeOf(events.at(-1)!.position) })
    }
  }

  /** A clean log has no line above info: whatever is warned of is a fault too. */
  #loggerOf(world: World): Logger {
    const report = (fields: object, message?: string) => {
      const { err } = fields as { err?: Error }
      if (!this.weather.isDead) world.report('logged', `${this.name}: ${message} ${err?.stack ?? ''}`)
    }
    return { info() {}, warn: report, error: report }
  }

  /** Tries until the log lets it. */
  async start(): Promise<void> {
    const { clock, truth } = this.#world
    for (;;) {
      try {
        await this.gateway.start()
        break
      } catch {
        await clock.delay(100)
        if (this.weather.isDead) return
      }
    }
    this.conversations.followFrom(this.gateway.hub.position)
    this.#fed.push({ at: clock.now, place: truth.placeOf(this.gateway.hub.position) })
    this.isUp = true
    this.#world.note(`${this.name} is up at place ${this.#fed[0]!.place}`)
  }

  /** A device's socket, upgraded. */
  connect(line: Line): void {
    this.#lines.add(line)
    this.gateway.open(line.ws, line.stream)
  }

  /** As SIGKILL does: sockets end, and what was on its way to the log may arrive or not. */
  crash(): void {
    this.#world.note(`${this.name} crashes`)
    this.isUp = false
    this.weather.isDead = true
    for (const line of this.#lines) line.endServer(1006)
    void this.gateway
      .stop()
      .catch(() => {})
      .then(() => this.#store.close())
  }

  /** As SIGTERM does. */
  async stop(): Promise<void> {
    const { clock, report } = { clock: this.#world.clock, report: this.#world.report.bind(this.#world) }
    this.#world.note(`${this.name} stops`)
    this.isUp = false
    const beganAt = clock.now
    const late = setTimeout(() => report('stop', `${this.name} has not stopped after ${STOP_WITHIN_MS} ms`), STOP_WITHIN_MS)
    await this.gateway.stop()
    await this.conversations.close()
    await this.users.close()
    await this.#store.close()
    clearTimeout(late)
    this.weather.isDead = true
    this.#world.note(`${this.name} has stopped after ${(clock.now - beganAt).toFixed(0)} ms`)
  }

  acknowledge(conversationId: string, seq: number): void {
    const key = `${conversationId}:${seq}`
    if (!this.#acknowledged.has(key)) this.#acknowledged.set(key, this.#world.clock.now)
  }

  /** Whether the node had acknowledged this event, or its feed had brought it, before `at`. */
  knew(conversationId: string, seq: number, at: number): boolean {
    if ((this.#acknowledged.get(`${conversationId}:${seq}`) ?? Infinity) < at) return true
    const fed = this.#fed.findLast((one) => one.at < at)
    return fed !== undefined && fed.place >= this.#world.truth.placeOfEvent(conversationId, seq)
  }

  get fedPlace(): number {
    return this.#fed.at(-1)?.place ?? 0
  }
}

/** A token is the user's id, and nothing is ever revoked. */
function trusting(): Authenticator {
  return {
    authenticate: async (token) => ({ kind: 'user', userId: token, deviceId: null, issuedAt: Date.now(), expiresAt: Date.now() + 1e9 }),
    isRevoked: async () => false,
  }
}
