/** The composition root: the only place that constructs adapters and hands them to those who use them. */
import { randomUUID } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { Gauge, Registry, collectDefaultMetrics } from 'prom-client'
import { createApi } from './api/api.js'
import { Requests } from './api/requests.js'
import { createAuthenticator } from './auth/authenticator.js'
import type { Config } from './config.js'
import { Conversations } from './domain/conversations.js'
import type { DevicePresenceSource } from './domain/devices.js'
import type { EventStore, Position } from './domain/event-store.js'
import type { Logger } from './domain/logger.js'
import { StateFollower, type StateFollowerOptions, followStates } from './domain/state-follower.js'
import { Users } from './domain/users.js'
import { KurrentDbEventStore } from './event-stores/kurrentdb/kurrentdb-event-store.js'
import { PostgresEventStore } from './event-stores/postgres/postgres-event-store.js'
import { createAsyncApiDocument } from './gateway/asyncapi/document.js'
import { CONNECTIONS_PER_USER_MAX, Gateway, type GatewayOptions } from './gateway/gateway.js'
import { LocalOnlineDevices } from './gateway/local-online-devices.js'
import type { OnlineDevices } from './gateway/online-devices.js'
import { LivePresence } from './gateway/presence.js'
import { type Signals, noSignals } from './gateway/signals.js'
import { TIMES, type Times } from './gateway/times.js'
import { isLoss } from './projections/database.js'
import { Load, type LoadOptions, type SharedUse } from './load/load.js'
import { ReadModels } from './projections/read-models.js'
import { channelsOf } from './redis/keys.js'
import { RedisLink } from './redis/link.js'
import { RedisOnlineDevices } from './redis/online-devices.js'
import { RedisSharedUse } from './redis/shared-use.js'
import { RedisSignals } from './redis/signals.js'
import type { Secrets } from './secrets.js'
import { Shutdown } from './shutdown.js'
import { StartError } from './start-error.js'

/** The stop of a server, and the share of it that each step has at most. */
const STOP_MS_MAX = 9_000
const DEVICES_LEAVE_MS_MAX = 4_500
const REQUESTS_END_MS_MAX = 2_500
const FEED_END_MS_MAX = 1_000
const REDIS_END_MS_MAX = 500
const STATES_SAVE_MS_MAX = 2_500
const READ_MODELS_CLOSE_MS_MAX = 2_000
const LOG_CLOSE_MS_MAX = 2_000

/** Folded states in memory: of conversations, with a quarter of that for their receipts beside it, and of users. */
export const STATES_BYTES_MAX = 128 << 20
export const USERS_BYTES_MAX = 32 << 20

export interface AppOptions {
  config: Config
  secrets: Secrets
  /** Of the Postgres that holds the log and the read models. */
  connectionString: string
  logger: Logger
  /** Hears why the server cannot go on; who started it ends it then. */
  onFatal?: (error: Error) => void
  /** Of the gateway, where not the usual ones. */
  times?: Partial<Times>
  /** Budgets of callers, where not the usual ones. */
  load?: Pick<LoadOptions, 'userUnitsPerSecond' | 'isGuarded' | 'turns' | 'now'>
}

/** A running server. */
export interface App {
  /** Where it listens. */
  url: string
  /** Lets devices go, finishes what was begun, and closes. */
  stop(): Promise<void>
}

/** The log. @throws {StartError} that names the setting, where it leads to no server */
export const openEventStore = (
  { eventStoreUrl, databaseUrl }: Config,
  connectionString: string,
  logger: Logger,
  onSetBack: (error: Error) => void = () => {},
): Promise<EventStore> =>
  eventStoreUrl === undefined
    ? reached('DATABASE_URL', databaseUrl, PostgresEventStore.open({ connectionString, logger, onSetBack }))
    : reached('EVENTSTORE_URL', eventStoreUrl, KurrentDbEventStore.open({ connectionString: eventStoreUrl, logger }))

/** Opens log and read models, and serves. @throws {StartError} when one of them can not be reached or the address is taken */
export async function startApp(options: AppOptions): Promise<App> {
  const { config, connectionString, logger } = options
  const shutdown = new Shutdown(logger)
  const stop = () => shutdown.run(STOP_MS_MAX)
  try {
    const store = await openEventStore(config, connectionString, logger, options.onFatal)
    shutdown.add('log', LOG_CLOSE_MS_MAX, () => store.close())
    const opening = ReadModels.open({
      connectionString,
      store,
      logger,
      fanoutOnWriteMax: config.fanoutOnWriteMembersMax,
      project: config.roles.has('projections'),
    })
    const readModels = await reached('DATABASE_URL', config.databaseUrl, opening)
    shutdown.add('read models', READ_MODELS_CLOSE_MS_MAX, () => readModels.close())
    const url = await serve(options, store, readModels, shutdown)
    return { url, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function serve(
  { config, secrets, logger, times, load: budgets }: AppOptions,
  store: EventStore,
  readModels: ReadModels,
  shutdown: Shutdown,
): Promise<string> {
  // A database of its own, which DATA_DIR locks, is the only one that no other node can reach.
  const isShared = config.databaseUrl !== undefined || config.eventStoreUrl !== undefined
  const presence: DevicePresenceSource = { findDevices: (userId, deviceIds) => shared.online.findDevices(userId, deviceIds) }
  const users = new Users({ store, snapshots: readModels.snapshots, logger, cacheWeightMax: USERS_BYTES_MAX, isShared, presence })
  const conversations = new Conversations({
    store,
    snapshots: readModels.snapshots,
    history: readModels.history,
    users,
    logger,
    membersMax: config.groupMembersMax,
    cacheWeightMax: STATES_BYTES_MAX,
    isShared,
  })
  shutdown.add('states', STATES_SAVE_MS_MAX, async () => void (await Promise.all([conversations.close(), users.close()])))
  const shared = await shareWithOtherNodes(config, logger, times?.presenceGraceMs ?? TIMES.presenceGraceMs, shutdown)
  const { appKeys, jwtSecret } = secrets
  const authenticator = createAuthenticator({ appKeys, jwtSecret, jwksUrl: config.jwksUrl, claims: config, users, logger })
  shutdown.add('key set', 0, () => authenticator.close())
  const load = new Load({ ...budgets, sharedUse: shared.sharedUse })
  load.start()
  shutdown.add('load', 0, () => load.stop())
  const parts = { store, conversations, users, readModels, authenticator, logger, load, ...shared }
  const { fanoutOnWriteMembersMax, framesPerSecond, allowedOrigins, publicUrl, trustedProxies } = config
  const handshakes = { perAddressMax: config.handshakesPerAddress, max: config.handshakesMax, trustedProxies }
  const live = config.roles.has('gateway')
    ? await startGateway({ ...parts, fanoutOnWriteMembersMax, framesPerSecond, handshakes, allowedOrigins, publicUrl, times })
    : await startFollower(parts)
  shutdown.add('live feed', FEED_END_MS_MAX, () => live.stop())
  const api = await createApi({
    ...parts,
    config,
    secrets,
    presence: live.presence,
    feed: live.feed,
    metrics: metricsOf(live, readModels),
    health: { findFault: () => (shutdown.isRunning ? Promise.resolve('This node is leaving.') : findFault(store, readModels)) },
    answersCalls: config.roles.has('api'),
    webSocketDocument: createAsyncApiDocument(),
  })
  const requests = new Requests(api)
  shutdown.add('requests', REQUESTS_END_MS_MAX, () =>
    requests.end(() => {
      readModels.endWaits()
      live.feed.endWaits()
    }),
  )
  shutdown.add('devices', DEVICES_LEAVE_MS_MAX, () => live.gateway?.leave())
  shutdown.add('kept connections', 0, () => requests.leave())
  live.gateway?.listen(api.server)
  return listen(api, config)
}

/** What is there only while a server answers at the URL of a setting. A database of our own is nobody's setting. */
async function reached<Opened>(setting: string, url: string | undefined, opening: Promise<Opened>): Promise<Opened> {
  try {
    return await opening
  } catch (error) {
    if (url === undefined || !isLoss(error)) throw error
    // Of several addresses that were tried there is a code, and no message.
    const { message, code = '' } = ((error as Error).cause ?? error) as NodeJS.ErrnoException
    throw new StartError(`${setting} leads to no server that lets us in: ${firstLine(message) || code}.`)
  }
}

const firstLine = (text: string) => text.split('\n', 1)[0]!.replace(/[.\s]+$/, '')

async function listen(api: FastifyInstance, { host, port }: Config): Promise<string> {
  try {
    return await api.listen({ host, port })
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    // Whatever else fails while the server gets ready says so itself.
    if (syscall === undefined) throw error
    if (code === 'EADDRINUSE') throw new StartError(`PORT ${port} of HOST ${host} is in use: stop what uses it, or take another PORT.`)
    if (code === 'EACCES') throw new StartError(`PORT ${port} is not for this user: take one above 1023.`)
    throw new StartError(`HOST ${host} is no address of this machine (${code}).`)
  }
}

/** What nodes share beside log and read models: in Redis, or of this node alone. */
interface Shared {
  online: OnlineDevices
  signals: Signals
  sharedUse: SharedUse | undefined
}

async function shareWithOtherNodes({ redisUrl }: Config, logger: Logger, graceMs: number, shutdown: Shutdown): Promise<Shared> {
  if (redisUrl === undefined) {
    const online = new LocalOnlineDevices({ graceMs })
    shutdown.add('presence', REDIS_END_MS_MAX, () => online.stop())
    return { online, signals: noSignals(), sharedUse: undefined }
  }
  const nodeId = randomUUID()
  const link = await RedisLink.open({ url: redisUrl, logger, channels: channelsOf(nodeId) })
  shutdown.add('Redis', REDIS_END_MS_MAX, () => link.close())
  const signals = new RedisSignals(link, nodeId)
  const online = new RedisOnlineDevices({ link, signals, nodeId, logger, graceMs, connectionsPerUserMax: CONNECTIONS_PER_USER_MAX })
  shutdown.add('presence', REDIS_END_MS_MAX, () => online.stop())
  await online.start()
  return { online, signals, sharedUse: new RedisSharedUse(link) }
}

/** What follows the log on this node, and who is online as it knows it. */
interface Live {
  gateway: Gateway | undefined
  presence: LivePresence
  /** The feed that keeps the states current. */
  feed: { readonly position: Position; reached(position: Position, withinMs?: number): Promise<void>; endWaits(): void }
  stop(): Promise<void>
}

async function startGateway(options: GatewayOptions): Promise<Live> {
  const gateway = new Gateway(options)
  gateway.hub.onEvents = (events) => followStates(events, options.conversations, options.users)
  await gateway.start()
  options.conversations.followFrom(gateway.hub.position)
  return { gateway, presence: gateway.presence, feed: gateway.hub, stop: () => gateway.stop() }
}

/** Of a node without sockets: its states follow the log too, and it can be asked who is online. */
async function startFollower({
  online,
  users,
  readModels,
  ...options
}: StateFollowerOptions & { online: OnlineDevices; readModels: ReadModels }): Promise<Live> {
  const follower = new StateFollower({ users, ...options })
  const presence = new LivePresence({
    online,
    users,
    readModels,
    connectionsOf: undefined,
    onError: (err) => options.logger.warn({ err }, 'who is online is not known'),
  })
  await follower.start()
  options.conversations.followFrom(follower.position)
  return { gateway: undefined, presence, feed: follower, stop: () => follower.stop() }
}

async function findFault(store: EventStore, readModels: ReadModels): Promise<string | undefined> {
  await store.head()
  const status = readModels.status()
  return status?.state === 'failing' ? 'The read models can not be kept current.' : undefined
}

function metricsOf({ gateway, feed }: Live, readModels: ReadModels): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  new Gauge({
    name: 'convolog_connections',
    help: 'Open WebSockets',
    registers: [registry],
    collect() {
      this.set(gateway?.connectionCount ?? 0)
    },
  })
  new Gauge({
    name: 'convolog_projection_lag_positions',
    help: 'How far the read models are behind the live feed, in positions of the log',
    registers: [registry],
    collect() {
      this.set(Math.max(0, Number.parseInt(feed.position, 10) - Number.parseInt(readModels.position, 10)) || 0)
    },
  })
  return registry
}
