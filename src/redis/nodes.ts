import type { Session } from '../gateway/online-devices.js'
import { BURIAL_TTL_MS, NODES_TTL_MS, NODE_SESSIONS_TTL_MS, NODE_TTL_MS, burialKey, nodeKey, nodeSessionsKey, nodesKey } from './keys.js'
import type { RedisLink } from './link.js'
import { type Route, sessionOf } from './sessions.js'

const SCAN_COUNT = 500

/** Which nodes live, and what becomes of the sessions of those that don't. */
export class Nodes {
  readonly #link: RedisLink
  readonly #nodeId: string
  /** These sessions of a node are over; it gave its last sign of life at `at`. */
  onGone: (sessions: readonly Session[], nodeId: string, at: number) => Promise<void> = async () => {}

  constructor(link: RedisLink, nodeId: string) {
    this.#link = link
    this.#nodeId = nodeId
  }

  /** A sign of life; false where the last one had run out or was lost, so that others may have taken this node for dead. */
  async beat(): Promise<boolean> {
    const [before] = await this.#link.batch(({ redis }) => {
      redis.set(nodeKey(this.#nodeId), '1', 'PX', NODE_TTL_MS, 'GET')
      redis.zadd(nodesKey, Date.now(), this.#nodeId).pexpire(nodesKey, NODES_TTL_MS)
      // Refreshed also while nobody comes.
      redis.pexpire(nodeSessionsKey(this.#nodeId), NODE_SESSIONS_TTL_MS)
    })
    return before !== null
  }

  /** Counts as alive for `graceMs` yet. */
  async leave(graceMs: number): Promise<void> {
    await this.#link.batch(
      ({ redis }) => void redis.set(nodeKey(this.#nodeId), '1', 'PX', graceMs).zadd(nodesKey, Date.now(), this.#nodeId),
    )
  }

  /** Of the nodes that these routes lead to, those that live. */
  async alive(routes: readonly Route[]): Promise<ReadonlySet<string>> {
    const nodeIds = [...new Set(routes.map(({ nodeId }) => nodeId))].filter((nodeId) => nodeId !== this.#nodeId)
    const living = new Set([this.#nodeId])
    if (nodeIds.length === 0) return living
    const answers = await this.#link.batch(({ redis }) => {
      for (const nodeId of nodeIds) redis.exists(nodeKey(nodeId))
    })
    nodeIds.forEach((nodeId, i) => answers[i] === 1 && living.add(nodeId))
    return living
  }

  /** Sees to the sessions of nodes that have given no sign of life for too long; one node does so for each. */
  async buryDead(): Promise<void> {
    const [known] = (await this.#link.batch(({ redis }) => void redis.zrange(nodesKey, 0, -1, 'WITHSCORES'))) as [string[]]
    const lastBeats = new Map<string, number>()
    for (let i = 0; i + 1 < known.length; i += 2) lastBeats.set(known[i]!, Number(known[i + 1]))
    const alive = await this.alive([...lastBeats.keys()].map((nodeId) => ({ deviceId: '', at: 0, nodeId, sessionId: '', hasSocket: true })))
    for (const [nodeId, at] of lastBeats) if (!alive.has(nodeId)) await this.#bury(nodeId, at)
  }

  async #bury(nodeId: string, at: number): Promise<void> {
    for (let cursor = '0'; ; ) {
      const [, holder, lives, page] = (await this.#link.batch(({ redis }) => {
        redis.set(burialKey(nodeId), this.#nodeId, 'PX', BURIAL_TTL_MS, 'NX').get(burialKey(nodeId))
        redis.exists(nodeKey(nodeId))
        redis.sscan(nodeSessionsKey(nodeId), cursor, 'COUNT', SCAN_COUNT)
      })) as [unknown, string, number, [string, string[]]]
      // Another node is at it; or this one is back from wherever it was.
      if (holder !== this.#nodeId || lives === 1) return
      const [next, members] = page
      if (members.length > 0) await this.onGone(members.map(sessionOf), nodeId, at)
      if (next === '0') break
      cursor = next
    }
    await this.#link.batch(({ redis }) => void redis.zrem(nodesKey, nodeId).del(nodeSessionsKey(nodeId), burialKey(nodeId)))
  }
}
