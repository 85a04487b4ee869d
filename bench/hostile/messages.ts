/** What the bench and its generators, which are processes of their own, tell each other. */

/** Where the server is and what the conversations are for. */
export interface Scene {
  url: string
  /** Conversations full of the largest content; every hostile user who reads pages is a member. */
  largeConversationIds: readonly string[]
  /** Before all of it: where a device resumes from that was away all the time. */
  firstPosition: string
}

export interface User {
  userId: string
  token: string
}

export interface OrdinaryJob {
  role: 'ordinary'
  scene: Scene
  users: readonly (User & { conversationIds: readonly string[] })[]
}

export interface Hostile extends User {
  kind: string
  /** Of an own address, so that what is bounded by address is bounded for each. */
  localAddress: string
}

export interface HostileJob {
  role: 'hostile'
  scene: Scene
  clients: readonly Hostile[]
}

export type Job = OrdinaryJob | HostileJob
export type Phase = 'warm-up' | 'quiet' | 'attack' | 'after'

export type ToGenerator =
  | { type: 'start'; job: Job }
  | { type: 'phase'; phase: Phase }
  /** Of hostile clients, all of this generator together; null: each at its own limits. */
  | { type: 'rate'; perSecond: number | null }
  | { type: 'report' }
  | { type: 'stop' }

export interface Acknowledged {
  conversationId: string
  clientMessageId: string
  seq: number
  /** Whether its first sending was the one that was answered: only such are bound to the order of sending. */
  isFirstTry: boolean
}

/** What ordinary users met, of what they began in one phase. */
export interface OrdinaryPhase {
  sends: number
  inboxes: number
  ackMs: number[]
  inboxMs: number[]
  errors: Record<string, number>
}

export interface OrdinaryReport {
  role: 'ordinary'
  phases: Partial<Record<Phase, OrdinaryPhase>>
  acknowledged: { userId: string; messages: readonly Acknowledged[] }[]
  unanswered: number
}

/** Answers by kind of client and then by code. */
export type HostileCounts = Record<string, Record<string, number>>

export interface HostileReport {
  role: 'hostile'
  counts: HostileCounts
}

export type FromGenerator = { type: 'ready' } | { type: 'report'; report: OrdinaryReport | HostileReport }
