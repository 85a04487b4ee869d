import { evolve, noConversation, SNAPSHOT_VERSION, stateToJson } from '../../src/domain/conversation/state.js'
import { NO_STREAM, ProposedEvent } from '../../src/domain/event-store.js'
import { type ConversationEvent, type Fact, schemaVersions } from '../../src/domain/events.js'
import { chainHash } from '../../src/domain/hash-chain.js'
import { conversationStream } from '../../src/domain/ids.js'
import { InMemoryLog } from '../support/in-memory-event-store.js'
import type { World } from './world.js'

export const OLD_CONVERSATION = 'g-old'
/** More than the window of a state holds, which is one to two thousand revisions. */
const EVENTS = 2_200
/** As far as the tables are when the run begins: before the recall and the removal. */
const APPLIED = 20
const RECALL_AT = 25
const RECALLED_SEQ = 5
const REMOVAL_AT = 26
const SNAPSHOT_AT = EVENTS - 30
const SENT_AT = Date.UTC(2025, 0, 1)

let made: { log: InMemoryLog; state: unknown } | undefined

/**
 * A conversation that is longer than the window of its state, with tables that are far behind: a recall and a removal lie before
 * the window, and the tables do not know them yet. Made once, since it is the same in every run.
 */
export function addOldConversation(world: World): void {
  made ??= make()
  const stream = conversationStream(OLD_CONVERSATION)
  world.log.beginWith(made.log.events)
  world.truth.sync()
  for (const event of world.log.events.slice(0, APPLIED)) world.tables.apply(event)
  const { revision, position, metadata } = world.log.events[SNAPSHOT_AT]!
  world.snapshots.set(stream, { version: SNAPSHOT_VERSION, revision, position, hash: metadata.hash, state: made.state })
}

function make(): NonNullable<typeof made> {
  const stream = conversationStream(OLD_CONVERSATION)
  const events: ProposedEvent[] = []
  let state = noConversation
  let snapshot: unknown
  for (let revision = 0; revision < EVENTS; revision++) {
    const { type, data } = eventAt(revision, state.lastOrdinal + 1)
    const id = `00000000-0000-4000-8000-${String(revision).padStart(12, '0')}`
    const actor = { userId: revision % 3 === 0 ? 'u0' : 'u1' }
    const at = SENT_AT + revision
    const dataJson = JSON.stringify(data)
    const hash = chainHash(events.at(-1)?.metadata.hash ?? '', { stream, revision, id, type, dataJson, actor, at })
    const metadata = { actor, at, correlationId: 'old', causationId: null, schemaVersion: schemaVersions[type], hash }
    const event = new ProposedEvent({ id, type, stream, revision, data, dataJson, metadata })
    events.push(event)
    state = evolve(state, event as unknown as Fact<ConversationEvent>)
    if (revision === SNAPSHOT_AT) snapshot = JSON.parse(JSON.stringify(stateToJson(state)))
  }
  const log = new InMemoryLog()
  log.append({ stream, expectedRevision: NO_STREAM, events })
  return { log, state: snapshot }
}

function eventAt(revision: number, ordinal: number): ConversationEvent {
  const members = [
    { userId: 'u0', role: 'owner' as const },
    { userId: 'u1', role: 'member' as const },
    { userId: 'u2', role: 'member' as const },
  ]
  if (revision === 0) return { type: 'ConversationCreated', data: { type: 'group', joinPolicy: 'open', members } }
  if (revision === RECALL_AT) return { type: 'MessageRecalled', data: { messageSeq: RECALLED_SEQ } }
  if (revision === REMOVAL_AT) return { type: 'MemberRemoved', data: { userId: 'u2' } }
  return { type: 'MessageSent', data: { clientMessageId: `old ${revision}`, ordinal, content: { type: 'text', text: `old ${revision}` } } }
}
