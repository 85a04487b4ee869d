import type { Position } from './event-store.js'

/**
 * A stream's fold up to a revision. Disposable: without it a stream is folded from its beginning.
 * It is valid only if the log has an event with this hash at this revision; the reader checks that.
 */
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
  /** Replaces one of a lower revision. */
  save(stream: string, snapshot: Snapshot): Promise<void>
  /** Forgets the snapshot at this revision with this hash, and no other. */
  discard(stream: string, revision: number, hash: string): Promise<void>
}
