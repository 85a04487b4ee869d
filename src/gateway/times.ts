/** How long things take that clients notice. Tests are handed shorter times. */
export interface Times {
  /** `hello` must come within this. */
  helloWithinMs: number
  /** A ping this often; a socket that is silent for twice this is closed. */
  heartbeatMs: number
  /** What is not acknowledged is sent again after this. */
  repushAfterMs: number
  /** A reconnect within this is no going offline. */
  presenceGraceMs: number
  /** Cursors that are moved without a `ref` are gathered for so long. */
  cursorsMs: number
  /** A socket that takes nothing of what waits for it for this long is closed. */
  stalledMs: number
}

export const TIMES: Times = {
  helloWithinMs: 10_000,
  heartbeatMs: 30_000,
  repushAfterMs: 5_000,
  presenceGraceMs: 5_000,
  cursorsMs: 1_000,
  stalledMs: 30_000,
}
