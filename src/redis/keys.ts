/**
 * Every key and channel in Redis, each with how long it lives. All of it may be lost at any moment: the nodes write anew what
 * is true, and what nobody writes any more runs out. What is in braces decides the slot, so that a script's keys share one.
 */

/** Hash, deviceId → session (see sessions.ts): on which nodes a user's devices are. Written anew within a third of its time. */
export const routeKey = (userId: string) => `convolog:route:{${userId}}`
export const ROUTE_TTL_MS = 180_000

/** Sorted set, deviceId by the time (ms) at which it was seen last; the newest LAST_SEEN_DEVICES_MAX of them. */
export const lastSeenKey = (userId: string) => `convolog:last-seen:{${userId}}`
export const LAST_SEEN_TTL_MS = 30 * 86_400_000
export const LAST_SEEN_DEVICES_MAX = 50

/** That a node is alive. Its users are offline when this has run out. */
export const nodeKey = (nodeId: string) => `convolog:node:{${nodeId}}`
export const NODE_TTL_MS = 10_000

/** Sorted set, nodeId by its last sign of life (ms): whose devices have to be seen to when it is gone. */
export const nodesKey = 'convolog:nodes'
export const NODES_TTL_MS = 86_400_000

/** Set, "userId deviceId sessionId": whom to look for when the node is gone. */
export const nodeSessionsKey = (nodeId: string) => `convolog:node-sessions:{${nodeId}}`
export const NODE_SESSIONS_TTL_MS = 600_000

/** Who sees to the devices of a node that is gone. */
export const burialKey = (nodeId: string) => `convolog:burial:{${nodeId}}`
export const BURIAL_TTL_MS = 10_000

/** Units that a caller has used in the second that runs; lives as long as that. */
export const useKey = (account: string) => `convolog:use:{${account}}`
export const USE_TTL_MS = 1_000

/** Channels: to all nodes, and to one. */
export const signalsChannel = 'convolog:signals'
export const nodeSignalsChannel = (nodeId: string) => `convolog:signals:{${nodeId}}`

/** What a node listens to. */
export const channelsOf = (nodeId: string) => [signalsChannel, nodeSignalsChannel(nodeId)]
