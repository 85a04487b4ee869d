/** The composition root: the only place that constructs adapters and hands them to those who use them. */
import type { FastifyInstance } from 'fastify'
import { Gauge, Registry, collectDefaultMetrics } from 'prom-client'
import { createApi } from './api/api.js'
import { createAuthenticator } from './auth/authenticator.js'
import type { Config } from './config.js'
import { Conversations } from './domain/conversations.js'
import type { EventStore, RecordedEvent } from './domain/event-store.js'
import { CONVERSATION_PREFIX, RECEIPTS_PREFIX, USER_PREFIX, idOfStream } from './domain/ids.js'
import type { Logger } from './domain/logger.js'
import { Users } from './domain/users.js'
import { PostgresEventStore } from './event-stores/postgres/postgres-event-store.js'
import { Gateway } from './gateway/gateway.js'
import { ReadModels } from './projections/read-models.js'
import type { Secrets } from './secrets.js'

/** Entries (members, recent messages, cursors) of folded states in memory: about 150 bytes each. */
const STATES_WEIGHT_MAX = 2_000_000
const USERS_WEIGHT_MAX = 500_000

export interface AppOptions {
  config: Config
  secrets: Secrets
  /** Of the Postgres that holds the log and the read models. */
  connectionString: string
  logger: Logger
}

/** A running server. */
export interface App {
  /** Where it listens. */
  url: string
  /** Lets devices go, finishes what was begun, and closes. */
  stop(): Promise<void>
}

/** The log. @throws {StoreUnavailable} */
export const openEventStore = (connectionString: string, logger: Logger): Promise<EventStore> => PostgresEventStore.open({ connectionString, logger })

/** Opens log and read models, and serves. @throws when one of them can not be opened or the address is taken */
export async function startApp(options: AppOptions): Promise<App> {
  const { config, connectionString, logger } = options
  const stopping: (() => Promise<void>)[] = []
  const stop = async () => {
    for (const step of stopping.splice(0).reverse()) await step()
  }
  try {
    const store = await openEventStore(connectionString, logger)
    stopping.push(() => store.close())
    const readModels = await ReadModels.open({
      connectionString, store, logger, fanoutOnWriteMax: config.fanoutOnWriteMembersMax, project: config.roles.has('projections'),
    })
    stopping.push(() => readModels.close())
    const url = await serve(options, store, readModels, stopping)
    return { url, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function serve({ config, secrets, logger }: AppOptions, store: EventStore, readModels: ReadModels, stopping: (() => Promise<void>)[]): Promise<string> {
  const users = new Users({ store, snapshots: readModels.snapshots, logger, cacheWeightMax: USERS_WEIGHT_MAX })
  const conversations = new Conversations({
    store, snapshots: readModels.snapshots, history: readModels.history, users, logger, membersMax: config.groupMembersMax, cacheWeightMax: STATES_WEIGHT_MAX,
  })
  stopping.push(async () => {
    await conversations.close()
    await users.close()
  })
  const authenticator = createAuthenticator({ appKeys: secrets.appKeys, jwtSecret: secrets.jwtSecret, jwksUrl: config.jwksUrl, users })
  const gateway = new Gateway({
    store, conversations, users, readModels, authenticator, logger,
    fanoutOnWriteMembersMax: config.fanoutOnWriteMembersMax, framesPerSecond: config.framesPerSecond, allowedOrigins: config.allowedOrigins,
  })
  gateway.hub.onEvents = (events) => followAll(events, conversations, users)
  const metrics = metricsOf(gateway, readModels)
  const api = await createApi({
    config, secrets, conversations, users, readModels, authenticator, presence: gateway.presence, store, logger, metrics, health: { findFault: () => findFault(store, readModels) },
  })
  await gateway.start()
  const url = await listen(api, gateway, config)
  stopping.push(() => api.close(), () => gateway.stop())
  return url
}

/** Folded states follow the log, so that what other nodes write is known here. */
function followAll(events: readonly RecordedEvent[], conversations: Conversations, users: Users): void {
  for (const event of events) {
    if (event.stream.startsWith(CONVERSATION_PREFIX)) conversations.follow(idOfStream(event.stream), event)
    else if (event.stream.startsWith(RECEIPTS_PREFIX)) conversations.followReceipts(idOfStream(event.stream), event)
    else if (event.stream.startsWith(USER_PREFIX)) users.follow(idOfStream(event.stream), event)
  }
}

async function findFault(store: EventStore, readModels: ReadModels): Promise<string | undefined> {
  await store.head()
  const status = readModels.status()
  return status?.state === 'failing' ? 'The read models can not be kept current.' : undefined
}

function metricsOf(gateway: Gateway, readModels: ReadModels): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  new Gauge({
    name: 'convolog_connections',
    help: 'Open WebSockets',
    registers: [registry],
    collect() {
      this.set(gateway.connectionCount)
    },
  })
  new Gauge({
    name: 'convolog_projection_lag_positions',
    help: 'How far the read models are behind the live feed, in positions of the log',
    registers: [registry],
    collect() {
      this.set(Math.max(0, Number.parseInt(gateway.hub.position, 10) - Number.parseInt(readModels.position, 10)) || 0)
    },
  })
  return registry
}

async function listen(api: FastifyInstance, gateway: Gateway, { host, port }: Config): Promise<string> {
  api.server.on('upgrade', (request, socket, head) => gateway.upgrade(request, socket, head))
  return api.listen({ host, port })
}
