import { Map as PersistentMap } from 'immutable'
import { Refusal } from '../../src/domain/errors.js'
import { decided, unchanged } from '../../src/domain/decision.js'
import type { EventStore, RecordedEvent } from '../../src/domain/event-store.js'
import type { ConversationEvent } from '../../src/domain/events.js'
import type { Logger } from '../../src/domain/logger.js'
import type { Snapshot, SnapshotStore } from '../../src/domain/snapshot-store.js'
import {
  type Decider,
  type Outcome,
  type Prepare,
  type Requester,
  Streams,
  type StreamsOptions,
} from '../../src/domain/write-path/streams.js'

/** The smallest thing that is decided: notes are said once each by their id, unless it is closed. */
export interface NotesState {
  seqs: PersistentMap<string, number>
  said: number
  closed: boolean
}

export type NotesCommand =
  | { type: 'say'; id: string; words?: string }
  /** Says all of these, or nothing. */
  | { type: 'sayAll'; ids: string[] }
  /** Is heard also where it is closed. */
  | { type: 'shout'; id: string }
  | { type: 'close' }
  | { type: 'open' }
  | { type: 'ignore' }
  /** A bug in the decision. */
  | { type: 'break' }

/** Holds until so many notes are said. */
export interface NotesContext {
  holdsUntil?: number
}

export const notes: Decider<NotesState, NotesCommand, NotesContext, ConversationEvent> = {
  initial: { seqs: PersistentMap(), said: 0, closed: false },
  streamOf: (id) => `conversation-${id}`,
  evolve: (state, event) => {
    if (event.type === 'ConversationFrozen') return { ...state, closed: true }
    if (event.type === 'ConversationUnfrozen') return { ...state, closed: false }
    if (event.type !== 'MessageSent') return state
    if (event.data.clientMessageId === 'unfoldable') throw new Error('a bug in the fold')
    return { ...state, said: state.said + 1, seqs: state.seqs.set(event.data.clientMessageId, event.revision) }
  },
  decide: (state, command) => {
    switch (command.type) {
      case 'ignore':
        return unchanged
      case 'break':
        throw new TypeError('a bug in the decision')
      case 'close':
        return state.closed ? unchanged : decided({ type: 'ConversationFrozen', data: {} })
      case 'open':
        return state.closed ? decided({ type: 'ConversationUnfrozen', data: {} }) : unchanged
      case 'sayAll':
        return decided(...command.ids.map((id, i) => note(id, state.said + i + 1)))
      case 'say':
      case 'shout': {
        const seq = state.seqs.get(command.id)
        if (seq !== undefined) return { kind: 'resent', seq }
        if (state.closed && command.type === 'say') throw new Refusal('conversation_frozen', 'It is closed.')
        return decided(note(command.id, state.said + 1, command.type === 'say' ? command.words : undefined))
      }
    }
  },
  isCurrent: ({ holdsUntil }, state) => holdsUntil === undefined || state.said < holdsUntil,
  weightOf: () => 1,
  snapshotVersion: 1,
  toJson: ({ seqs, ...rest }) => ({ ...rest, seqs: [...seqs] }),
  fromJson: (json) => ({ ...(json as NotesState), seqs: PersistentMap((json as { seqs: [string, number][] }).seqs) }),
}

const note = (id: string, ordinal: number, words = id): ConversationEvent => ({
  type: 'MessageSent',
  data: { clientMessageId: id, ordinal, content: { type: 'text', text: words } },
})

export const say = (id: string): NotesCommand => ({ type: 'say', id })
export const requester: Requester = { actor: { userId: 'anna' }, correlationId: 'request-1' }

export type NotesStreams = Streams<NotesState, NotesCommand, NotesContext, ConversationEvent>
export type NotesOutcome = Outcome<NotesState>

export function notesStreams(
  options: { store: EventStore } & Partial<StreamsOptions<NotesState, NotesCommand, NotesContext, ConversationEvent>>,
): NotesStreams {
  const prepare: Prepare<NotesState, NotesCommand, NotesContext> = () => ({})
  return new Streams({
    decider: notes,
    prepare,
    snapshots: new InMemorySnapshots(),
    logger: new LogBook(),
    cacheWeightMax: 100,
    ...options,
  })
}

export class InMemorySnapshots implements SnapshotStore {
  readonly saved = new Map<string, string>()
  saves = 0
  failure: Error | undefined

  async load(stream: string): Promise<Snapshot | undefined> {
    if (this.failure) throw this.failure
    const json = this.saved.get(stream)
    return json === undefined ? undefined : (JSON.parse(json) as Snapshot)
  }

  async save(stream: string, snapshot: Snapshot): Promise<void> {
    this.saves += 1
    if (this.failure) throw this.failure
    const saved = JSON.parse(this.saved.get(stream) ?? '{"version":0,"revision":-1}') as Snapshot
    if (snapshot.version < saved.version || (snapshot.version === saved.version && snapshot.revision <= saved.revision)) return
    this.saved.set(stream, JSON.stringify(snapshot))
  }

  async discard(stream: string, revision: number, hash: string): Promise<void> {
    if (this.failure) throw this.failure
    const saved = JSON.parse(this.saved.get(stream) ?? '{}') as Partial<Snapshot>
    if (saved.revision === revision && saved.hash === hash) this.saved.delete(stream)
  }
}

/** What was logged, by level. */
export class LogBook implements Logger {
  readonly lines: string[] = []
  info(_: object, text: string): void {
    this.lines.push(`info: ${text}`)
  }
  warn(_: object, text: string): void {
    this.lines.push(`warn: ${text}`)
  }
  error(_: object, text: string): void {
    this.lines.push(`error: ${text}`)
  }
}

export const clientIdOf = (event: RecordedEvent) => (event.data as { clientMessageId?: string }).clientMessageId
