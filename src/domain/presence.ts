export interface UserPresence {
  userId: string
  online: boolean
  /** ISO 8601; null while online, where unknown, and to those who may not see it. */
  lastSeenAt: string | null
}

export interface DevicePresence {
  deviceId: string
  online: boolean
  lastSeenAt: string | null
}

/** Who is online, as one user may see it. Never an event; lost when what keeps it is lost. */
export interface Presence {
  /** In the order asked. @throws {Refusal} unavailable */
  query(viewerId: string, userIds: readonly string[]): Promise<UserPresence[]>
  /** Of one's own devices. */
  ofDevices(userId: string, deviceIds: readonly string[]): Promise<DevicePresence[]>
}
