import { LRUCache } from 'lru-cache'
import { isoOf } from '../domain/client-event.js'
import type { Presence, UserPresence } from '../domain/presence.js'
import type { Users } from '../domain/users.js'
import type { ReadModels } from '../projections/read-models.js'
import type { Connection } from './connection.js'
import { jsonFrame } from './frames.js'

/** A reconnect within this time is no going offline. */
export const GRACE_MS = 5_000
const LAST_SEEN_USERS_MAX = 100_000

interface OnlineUser {
  /** deviceId → its sockets. A device within its grace has none. */
  devices: Map<string, { sockets: number; grace: NodeJS.Timeout | undefined }>
}

export interface LocalPresenceOptions {
  users: Users
  readModels: ReadModels
  /** Connected users and their sockets. */
  connectionsOf: (userId: string) => Iterable<Connection>
  onError: (error: unknown) => void
}

/** Presence of one node, in memory: a device is online while it has a socket, and a grace longer; a user while one device is. */
export class LocalPresence implements Presence {
  readonly #users: Users
  readonly #readModels: ReadModels
  readonly #connectionsOf: (userId: string) => Iterable<Connection>
  readonly #onError: (error: unknown) => void
  readonly #online = new Map<string, OnlineUser>()
  readonly #lastSeen = new LRUCache<string, number>({ max: LAST_SEEN_USERS_MAX })
  /** Who is told of whom. */
  readonly #subscribers = new Map<string, Set<Connection>>()
  readonly #subscriptions = new Map<Connection, ReadonlySet<string>>()

  constructor({ users, readModels, connectionsOf, onError }: LocalPresenceOptions) {
    this.#users = users
    this.#readModels = readModels
    this.#connectionsOf = connectionsOf
    this.#onError = onError
  }

  // --- what happens ---

  connected({ userId, deviceId }: Connection): void {
    let user = this.#online.get(userId)
    const isNew = user === undefined
    if (!user) this.#online.set(userId, (user = { devices: new Map() }))
    const device = user.devices.get(deviceId) ?? { sockets: 0, grace: undefined }
    clearTimeout(device.grace)
    user.devices.set(deviceId, { sockets: device.sockets + 1, grace: undefined })
    if (isNew) this.#announce(userId)
  }

  disconnected(connection: Connection): void {
    this.#unsubscribe(connection)
    const { userId, deviceId } = connection
    const device = this.#online.get(userId)?.devices.get(deviceId)
    if (!device) return
    device.sockets -= 1
    this.#saw(userId, deviceId, Date.now())
    if (device.sockets === 0) device.grace = setTimeout(() => this.#goOffline(userId, deviceId), GRACE_MS)
  }

  #goOffline(userId: string, deviceId: string): void {
    const user = this.#online.get(userId)
    user?.devices.delete(deviceId)
    if (!user || user.devices.size > 0) return
    this.#online.delete(userId)
    this.#announce(userId)
  }

  #saw(userId: string, deviceId: string, at: number): void {
    this.#lastSeen.set(userId, at)
    this.#lastSeen.set(`${userId} ${deviceId}`, at)
  }

  stop(): void {
    for (const { devices } of this.#online.values()) for (const { grace } of devices.values()) clearTimeout(grace)
  }

  // --- what is asked ---

  async query(viewerId: string, userIds: readonly string[]): Promise<UserPresence[]> {
    const visible = await this.#visibleTo(viewerId, userIds)
    return userIds.map((userId) => (visible.has(userId) ? this.#presenceOf(userId) : { userId, online: false, lastSeenAt: null }))
  }

  async ofDevices(userId: string, deviceIds: readonly string[]): Promise<{ deviceId: string; online: boolean; lastSeenAt: string | null }[]> {
    const devices = this.#online.get(userId)?.devices
    return deviceIds.map((deviceId) => {
      const online = devices?.has(deviceId) ?? false
      return { deviceId, online, lastSeenAt: online ? null : this.#lastSeenOf(`${userId} ${deviceId}`) }
    })
  }

  /** Replaces what the connection subscribes to; `contacts` adds its user's own. Gives how they are now. */
  async subscribe(connection: Connection, userIds: readonly string[], contacts: boolean): Promise<UserPresence[]> {
    const own = contacts ? (await this.#users.load(connection.userId)).state.contacts : []
    const wanted = new Set([...userIds, ...own])
    this.#unsubscribe(connection)
    this.#subscriptions.set(connection, wanted)
    for (const userId of wanted) {
      const subscribers = this.#subscribers.get(userId) ?? new Set()
      this.#subscribers.set(userId, subscribers.add(connection))
    }
    return this.query(connection.userId, [...wanted])
  }

  #unsubscribe(connection: Connection): void {
    for (const userId of this.#subscriptions.get(connection) ?? []) {
      const subscribers = this.#subscribers.get(userId)
      subscribers?.delete(connection)
      if (subscribers?.size === 0) this.#subscribers.delete(userId)
    }
    this.#subscriptions.delete(connection)
  }

  #presenceOf(userId: string): UserPresence {
    const online = this.#online.has(userId)
    return { userId, online, lastSeenAt: online ? null : this.#lastSeenOf(userId) }
  }

  #lastSeenOf(key: string): string | null {
    const at = this.#lastSeen.get(key)
    return at === undefined ? null : isoOf(at)
  }

  // --- who may see whom ---

  /** A user is visible to those it shares a conversation with and to its own contacts, where neither has blocked the other. Oneself always. */
  async #visibleTo(viewerId: string, userIds: readonly string[]): Promise<Set<string>> {
    const viewer = (await this.#users.load(viewerId)).state
    const sharing = await this.#readModels.memberships.sharing(viewerId, userIds)
    const visible = new Set<string>()
    for (const userId of userIds) {
      if (userId === viewerId) visible.add(userId)
      else if (!viewer.blocks.has(userId)) {
        const { state } = await this.#users.load(userId)
        if (!state.blocks.has(viewerId) && (sharing.has(userId) || state.contacts.has(viewerId))) visible.add(userId)
      }
    }
    return visible
  }

  #announce(userId: string): void {
    this.#tell(userId).catch(this.#onError)
  }

  /** Subscribers, and those who have the user as a contact. */
  async #tell(userId: string): Promise<void> {
    const viewers = new Map<string, Set<Connection>>()
    const add = (connection: Connection) => viewers.set(connection.userId, (viewers.get(connection.userId) ?? new Set()).add(connection))
    for (const connection of this.#subscribers.get(userId) ?? []) add(connection)
    for (const contactOf of await this.#readModels.contacts.whoHave(userId)) for (const connection of this.#connectionsOf(contactOf)) add(connection)
    viewers.delete(userId)
    const frame = jsonFrame({ type: 'presence', ...this.#presenceOf(userId) })
    for (const [viewerId, connections] of viewers) {
      if (!(await this.#visibleTo(viewerId, [userId])).has(userId)) continue
      for (const connection of connections) connection.send(frame)
    }
  }
}
