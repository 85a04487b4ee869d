import { lruMap } from '../domain/lru-map.js'
import { isoOf } from '../domain/client-event.js'
import { isOutage } from '../domain/errors.js'
import type { DevicePresence, Presence, UserPresence } from '../domain/presence.js'
import type { UserState } from '../domain/user/user.js'
import type { Users } from '../domain/users.js'
import type { ReadQueries } from '../projections/read-models.js'
import type { Connection } from './connection.js'
import { jsonFrame } from './frames.js'
import type { OnlineDevices, OnlineState } from './online-devices.js'

/** Users whose state was said to somebody here: remembered so that what was missed can be made good. */
const SAID_MAX = 100_000
const LOOK_AT_ONCE = 500

export interface LivePresenceOptions {
  online: OnlineDevices
  users: Users
  readModels: ReadQueries
  /** Connected users and their sockets. Undefined: this node has none, and tells nobody. */
  connectionsOf: ((userId: string) => Iterable<Connection>) | undefined
  /** Whether both are connected here and share a conversation: of one just made, the tables do not know yet. */
  shareHere?: (userId: string, otherId: string) => boolean
  onError: (error: unknown) => void
}

/** Who may see whom, and who is told; where it is kept who is online is the business of `OnlineDevices`. */
export class LivePresence implements Presence {
  readonly #options: LivePresenceOptions
  readonly #report: (error: unknown) => void
  readonly #online: OnlineDevices
  readonly #users: Users
  /** Who is told of whom. */
  readonly #subscribers = new Map<string, Set<Connection>>()
  readonly #subscriptions = new Map<Connection, ReadonlySet<string>>()
  /** Users who are online as far as devices here were told: all of them, or only one that asked. */
  readonly #saidOnline = lruMap<string, 'to all' | 'to one'>(SAID_MAX)
  readonly #telling = new Map<string, Promise<void>>()
  readonly #present = new Set<Connection>()

  constructor(options: LivePresenceOptions) {
    this.#options = options
    this.#report = (error) => {
      if (!isOutage(error)) options.onError(error)
    }
    this.#online = options.online
    this.#users = options.users
    this.#online.onChange = (userId, now) => this.#changed(userId, now)
    this.#online.onDoubt = () => void this.#lookAgain().catch(this.#report)
  }

  // --- what happens ---

  connected(connection: Connection): void {
    this.#present.add(connection)
    this.#online.connected(connection)
  }

  disconnected(connection: Connection): void {
    this.#unsubscribe(connection)
    // One that broke off before its hello was answered was never there.
    if (this.#present.delete(connection)) this.#online.disconnected(connection)
  }

  // --- what is asked ---

  async query(viewerId: string, userIds: readonly string[]): Promise<UserPresence[]> {
    const [visible, states] = await Promise.all([this.#visibleTo(viewerId, userIds), this.#find(userIds)])
    return userIds.map((userId) => presenceOf(userId, visible.has(userId) ? states.get(userId) : undefined))
  }

  /** Devices are listed also where nobody can say whether they are online. */
  async ofDevices(userId: string, deviceIds: readonly string[]): Promise<DevicePresence[]> {
    const states = await this.#online.findDevices(userId, deviceIds).catch((error: unknown) => {
      this.#report(error)
      return []
    })
    return deviceIds.map((deviceId, i) => ({ deviceId, online: states[i]?.online ?? false, lastSeenAt: lastSeenOf(states[i]) }))
  }

  /** Replaces what the connection subscribes to; `contacts` adds its user's own. Gives how they are now. */
  async subscribe(connection: Connection, userIds: readonly string[], contacts: boolean): Promise<UserPresence[]> {
    const own = contacts ? (await this.#users.load(connection.userId)).state.contacts : []
    const wanted = new Set([...userIds, ...own])
    this.#unsubscribe(connection)
    // One that has gone meanwhile will not be unsubscribed again.
    if (!connection.isOpen) return []
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

  async #find(userIds: readonly string[]): Promise<Map<string, OnlineState>> {
    const states = await this.#online.find(userIds)
    const found = new Map<string, OnlineState>()
    userIds.forEach((userId, i) => {
      const state = states[i]
      if (!state) return
      found.set(userId, state)
      if (!state.online) this.#saidOnline.delete(userId)
      else if (!this.#saidOnline.has(userId)) this.#saidOnline.set(userId, 'to one')
    })
    return found
  }

  // --- who may see whom ---

  /** A user is visible to those it knows, where neither has blocked the other. Oneself always. */
  async #visibleTo(viewerId: string, userIds: readonly string[]): Promise<Set<string>> {
    const viewer = (await this.#users.load(viewerId)).state
    const known = await this.#known(viewerId, userIds)
    const seen = userIds.filter((userId) => known.has(userId) && !viewer.blocks.has(userId))
    const states = await this.#statesOf(seen)
    const visible = new Set(seen.filter((userId) => !states.get(userId)!.blocks.has(viewerId)))
    if (userIds.includes(viewerId)) visible.add(viewerId)
    return visible
  }

  /** Asked for in one turn, so that those that are not in memory are looked up together. */
  async #statesOf(userIds: readonly string[]): Promise<Map<string, UserState>> {
    const loaded = await Promise.all(userIds.map(async (userId) => (await this.#users.load(userId)).state))
    return new Map(userIds.map((userId, i) => [userId, loaded[i]!]))
  }

  /** Those who share a conversation with a user, or have it as a contact. */
  async #known(viewerId: string, userIds: readonly string[]): Promise<Set<string>> {
    const { readModels, shareHere } = this.#options
    const known = new Set(await readModels.memberships.sharing(viewerId, userIds))
    for (const userId of userIds) if (!known.has(userId) && shareHere?.(viewerId, userId)) known.add(userId)
    const states = await this.#statesOf(userIds.filter((userId) => !known.has(userId)))
    for (const [userId, { contacts }] of states) if (contacts.has(viewerId)) known.add(userId)
    return known
  }

  // --- who is told ---

  #changed(userId: string, now: OnlineState): void {
    if (!this.#options.connectionsOf) return
    // After an outage every node says anew who is there: those here know.
    if (now.online && this.#saidOnline.get(userId) === 'to all') return
    if (now.online) this.#saidOnline.set(userId, 'to all')
    else this.#saidOnline.delete(userId)
    this.#inTurn(userId, () => this.#tell(userId, now))
  }

  /** Looking up who is told takes its time: of one user the last change is told last. */
  #inTurn(userId: string, tell: () => Promise<void>): void {
    const before = this.#telling.get(userId) ?? Promise.resolve()
    const telling = before
      .then(tell)
      .catch(this.#report)
      .finally(() => {
        if (this.#telling.get(userId) === telling) this.#telling.delete(userId)
      })
    this.#telling.set(userId, telling)
  }

  /** Subscribers, and those who have the user as a contact. */
  async #tell(userId: string, now: OnlineState): Promise<void> {
    const { connectionsOf, readModels } = this.#options
    const viewers = new Map<string, Set<Connection>>()
    const add = (connection: Connection) => viewers.set(connection.userId, (viewers.get(connection.userId) ?? new Set()).add(connection))
    for (const connection of this.#subscribers.get(userId) ?? []) add(connection)
    for await (const owners of readModels.contacts.whoHave(userId))
      for (const owner of owners) for (const connection of connectionsOf?.(owner) ?? []) add(connection)
    viewers.delete(userId)
    if (viewers.size === 0) return
    const frame = jsonFrame({ type: 'presence', ...presenceOf(userId, now) })
    for (const [viewerId, connections] of viewers) {
      if (!(await this.#visibleTo(viewerId, [userId])).has(userId)) continue
      for (const connection of connections) connection.push(frame)
    }
  }

  /** A user has blocked another, or no more: to each of them the other looks offline, or is what it is. */
  blockChanged(userId: string, otherId: string): void {
    this.#inTurn(userId, () => this.#tellOfBlock(otherId, userId, [userId, otherId]))
    this.#inTurn(otherId, () => this.#tellOfBlock(userId, otherId, [userId, otherId]))
  }

  /** Who could not see the user before and after is told nothing: not even that there is a block. */
  async #tellOfBlock(viewerId: string, userId: string, [blockerId, otherId]: readonly [string, string]): Promise<void> {
    const connections = () => [...(this.#options.connectionsOf?.(viewerId) ?? [])]
    // Every node hears of every block.
    if (connections().length === 0) return
    const [now] = await this.#online.find([userId])
    const isOtherBlocking = (await this.#users.load(otherId)).state.blocks.has(blockerId)
    if (!now?.online || isOtherBlocking || !(await this.#known(viewerId, [userId])).has(userId)) return
    const [looks] = await this.query(viewerId, [userId])
    const isContact = (await this.#users.load(viewerId)).state.contacts.has(userId)
    const frame = jsonFrame({ type: 'presence', ...looks })
    for (const connection of connections()) if (isContact || this.#subscriptions.get(connection)?.has(userId)) connection.push(frame)
  }

  /** Those of whom somebody here was told or wants to be told are looked at, and what has changed is said. */
  async #lookAgain(): Promise<void> {
    const userIds = [...new Set([...this.#saidOnline.keys(), ...this.#subscribers.keys()])]
    for (let at = 0; at < userIds.length; at += LOOK_AT_ONCE) {
      const some = userIds.slice(at, at + LOOK_AT_ONCE)
      const states = await this.#online.find(some)
      some.forEach((userId, i) => {
        const state = states[i]
        if (state && (state.online || this.#saidOnline.has(userId))) this.#changed(userId, state)
      })
    }
  }
}

const presenceOf = (userId: string, state: OnlineState | undefined): UserPresence => ({
  userId,
  online: state?.online ?? false,
  lastSeenAt: lastSeenOf(state),
})

const lastSeenOf = (state: OnlineState | undefined): string | null =>
  state === undefined || state.lastSeenAt === null ? null : isoOf(state.lastSeenAt)
