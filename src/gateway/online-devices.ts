/** A device's socket, as presence sees it. */
export interface Session {
  readonly sessionId: string
  readonly userId: string
  readonly deviceId: string
}

/** Of a user or a device. */
export interface OnlineState {
  online: boolean
  /** ms since the epoch; null while online, and where it is not known. */
  lastSeenAt: number | null
}

/**
 * Which devices have a socket: on this node, kept in memory, or on all nodes, kept in Redis. A device is online while it has
 * a socket and a grace longer, a user while one device is. One contract suite holds both to that.
 */
export interface OnlineDevices {
  connected(session: Session): void
  disconnected(session: Session): void
  /** In the order asked. @throws {Refusal} unavailable */
  find(userIds: readonly string[]): Promise<OnlineState[]>
  /** In the order asked. @throws {Refusal} unavailable */
  findDevices(userId: string, deviceIds: readonly string[]): Promise<OnlineState[]>
  /** A user came or went, on whichever node. */
  onChange: (userId: string, now: OnlineState) => void
  /** A newer connection on another node takes the place of this one. */
  onReplaced: (session: Session) => void
  /** Changes may have been missed: look at those who matter. */
  onDoubt: () => void
  stop(): Promise<void>
}
