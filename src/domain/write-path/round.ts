/** What the write path passes about while it settles a batch of commands of one stream. */
import type { Decision } from '../decision.js'
import type { Refusal } from '../errors.js'
import type { Actor, Position, ProposedEvent, RecordedEvent } from '../event-store.js'

/** A stream's state, and where in the log it stands. */
export interface Folded<State> {
  state: State
  revision: number
  /** Of the last event; '' where there is none. */
  position: Position
  hash: string
}

/** Who asks, and the request that all its events will name. */
export interface Requester {
  actor: Actor
  correlationId: string
}

export type Outcome<State> =
  | { kind: 'appended'; events: readonly RecordedEvent[]; folded: Folded<State> }
  | { kind: 'unchanged'; folded: Folded<State> }
  | { kind: 'resent'; seq: number; folded: Folded<State> }

/** A command that waits in a mailbox for its answer. */
export interface Item<State, Command, Context> {
  command: Command
  requester: Requester
  resolve: (outcome: Outcome<State>) => void
  reject: (error: unknown) => void
  /** What it takes while it waits. */
  bytes: number
  context?: Context
  /** Answered already: its look-up failed. */
  failed?: boolean
}

export type Answer<State, Command, Context> =
  | { item: Item<State, Command, Context>; decision: Decision<unknown>; first: number; count: number; refusal?: never }
  | { item: Item<State, Command, Context>; refusal: Refusal }

/** What came of deciding one batch on one state. */
export interface Round<State, Command, Context> {
  answers: Answer<State, Command, Context>[]
  proposed: ProposedEvent[]
  bytes: number
  state: State
  revision: number
  hash: string
  /** Decided in a next round: their look-ups have become too old within this batch, or it is full. */
  again: Item<State, Command, Context>[]
  recorded?: readonly RecordedEvent[]
  folded?: Folded<State>
}

export function answerAll<State, Command, Context>(round: Round<State, Command, Context>, before: Folded<State>): void {
  const folded = round.folded ?? before
  for (const answer of round.answers) {
    const { item } = answer
    if (answer.refusal) item.reject(answer.refusal)
    else if (answer.decision.kind === 'events')
      item.resolve({ kind: 'appended', events: (round.recorded ?? []).slice(answer.first, answer.first + answer.count), folded })
    else if (answer.decision.kind === 'resent') item.resolve({ kind: 'resent', seq: answer.decision.seq, folded })
    else item.resolve({ kind: 'unchanged', folded })
  }
}
