import type { Position } from './event-store.js'

/** A stream's fold up to a revision. Disposable: without it a stream is folded from its beginning. */
export interface Snapshot {
  /** Of the shape of `state`; another version is ignored. */
  version: number
  revision: number
  position: Position
  /** Hash of the last event: the chain goes on from it. */
  hash: string
  state: unknown
}

export interface SnapshotStore {
  load(stream: string): Promise<Snapshot | undefined>
  save(stream: string, snapshot: Snapshot): Promise<void>
}
