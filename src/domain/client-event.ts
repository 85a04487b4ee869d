/** A fact of a conversation as clients see it, in JSON: the same bytes in pushes, `events.get` and `GET …/events`. */
import { type RecordedEvent, actorJsonOf } from './event-store.js'
import { type ConversationEvent, factOf } from './events.js'
import { idOfStream } from './ids.js'
import type { Recalled } from './recalls-ahead.js'

let lastAt = -1
let lastIso = ''

/** ISO 8601 UTC with milliseconds. Events of one batch share their time: the last text is kept. */
export function isoOf(at: number): string {
  if (at !== lastAt) {
    lastAt = at
    lastIso = new Date(at).toISOString()
  }
  return lastIso
}

/**
 * One event as JSON text. `head` is the conversation's last seq as far as known; `isRecalled` says that the content
 * of this fact (a message or an edit of it) must not be shown any more.
 */
export function encodeEvent(event: RecordedEvent, head: number, isRecalled = false): string {
  // `data` is parsed only where it is changed: what comes from disk is JSON already.
  const fact = factOf<ConversationEvent>(event)
  const { metadata } = fact
  const shown = isRecalled ? JSON.stringify({ ...fact.data, content: null }) : fact.dataJson
  return `{"conversationId":"${idOfStream(event.stream)}","seq":${event.revision},"type":"${event.type}","at":"${isoOf(metadata.at)}","actor":${actorJsonOf(metadata.actor)},"data":${shown},"position":"${event.position}","head":${head}}`
}

/** The message whose content this fact carries, or undefined. */
export function messageShownBy(event: Pick<RecordedEvent, 'type' | 'revision' | 'data'>): number | undefined {
  if (event.type === 'MessageSent') return event.revision
  if (event.type === 'MessageEdited') return (event.data as { messageSeq: number }).messageSeq
  return undefined
}

/** An event as a client has it, as far as blanking it needs. */
export interface ClientEvent {
  seq: number
  type: string
  data: object
}

export const messageShownIn = ({ type, seq, data }: ClientEvent): number | undefined => messageShownBy({ type, revision: seq, data })

/** An event as JSON text, without content where the message that it shows was recalled. */
export function blankRecalled(text: string, recalled: Recalled): string {
  if (recalled.size === 0) return text
  const event = JSON.parse(text) as ClientEvent
  return recalled.has(messageShownIn(event) ?? -1) ? JSON.stringify({ ...event, data: { ...event.data, content: null } }) : text
}
