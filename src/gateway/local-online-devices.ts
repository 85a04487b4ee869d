import { lruMap } from '../domain/lru-map.js'
import { type OnlineDevices, type OnlineState, type Session } from './online-devices.js'

const LAST_SEEN_MAX = 100_000

interface LocalDevice {
  sockets: number
  /** Runs while there is no socket. */
  grace: NodeJS.Timeout | undefined
}

/** Those of one node, in memory. */
export class LocalOnlineDevices implements OnlineDevices {
  /** userId → deviceId → its sockets. */
  readonly #online = new Map<string, Map<string, LocalDevice>>()
  readonly #lastSeen = lruMap<string, number>(LAST_SEEN_MAX)
  onChange: OnlineDevices['onChange'] = () => {}
  /** Never here: the gateway sees to its own connections. */
  onReplaced: OnlineDevices['onReplaced'] = () => {}
  onDoubt: OnlineDevices['onDoubt'] = () => {}
  readonly #graceMs: number

  constructor({ graceMs }: { graceMs: number }) {
    this.#graceMs = graceMs
  }

  connected({ userId, deviceId }: Session): void {
    let devices = this.#online.get(userId)
    const isNew = devices === undefined
    if (!devices) this.#online.set(userId, (devices = new Map()))
    const { sockets, grace } = devices.get(deviceId) ?? { sockets: 0, grace: undefined }
    clearTimeout(grace)
    devices.set(deviceId, { sockets: sockets + 1, grace: undefined })
    if (isNew) this.onChange(userId, { online: true, lastSeenAt: null })
  }

  disconnected({ userId, deviceId }: Session): void {
    const device = this.#online.get(userId)?.get(deviceId)
    if (!device) return
    device.sockets -= 1
    const now = Date.now()
    this.#lastSeen.set(userId, now)
    this.#lastSeen.set(`${userId} ${deviceId}`, now)
    if (device.sockets === 0) device.grace = setTimeout(() => this.#goOffline(userId, deviceId), this.#graceMs)
  }

  #goOffline(userId: string, deviceId: string): void {
    const devices = this.#online.get(userId)
    devices?.delete(deviceId)
    if (!devices || devices.size > 0) return
    this.#online.delete(userId)
    this.onChange(userId, this.#stateOf(false, userId))
  }

  async find(userIds: readonly string[]): Promise<OnlineState[]> {
    return userIds.map((userId) => this.#stateOf(this.#online.has(userId), userId))
  }

  async findDevices(userId: string, deviceIds: readonly string[]): Promise<OnlineState[]> {
    const devices = this.#online.get(userId)
    return deviceIds.map((deviceId) => this.#stateOf(devices?.has(deviceId) ?? false, `${userId} ${deviceId}`))
  }

  #stateOf(online: boolean, lastSeenKey: string): OnlineState {
    return { online, lastSeenAt: online ? null : (this.#lastSeen.get(lastSeenKey) ?? null) }
  }

  async stop(): Promise<void> {
    for (const devices of this.#online.values()) for (const { grace } of devices.values()) clearTimeout(grace)
  }
}
