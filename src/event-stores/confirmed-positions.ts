import { lruMap } from '../domain/lru-map.js'
import type { Position } from '../domain/event-store.js'

/** About 100 bytes each. */
const POSITIONS_MAX = 10_000

/** The positions that were found in the log, for those who ask again: a log that a process runs on keeps what it has. */
export class ConfirmedPositions {
  readonly #confirmed = lruMap<Position, true>(POSITIONS_MAX)

  /** `findPosition`: what the log itself calls the place that `position` names. */
  async confirms(position: Position, findPosition: () => Promise<Position | undefined>): Promise<boolean> {
    if (this.#confirmed.get(position) !== undefined) return true
    const isThere = (await findPosition()) === position
    if (isThere) this.#confirmed.set(position, true)
    return isThere
  }
}
