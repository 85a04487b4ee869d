import { hash } from 'node:crypto'
import { type Actor, actorJsonOf } from './event-store.js'

export interface HashedEvent {
  stream: string
  revision: number
  id: string
  type: string
  /** `data` as stored. */
  dataJson: string
  actor: Actor
  at: number
}

/**
 * What makes a stream tamper-evident: the SHA-256 (base64url) of the UTF-8 JSON array
 * `[previous event's hash or "", stream, revision, id, type, data as stored, actor, at]`.
 */
export function chainHash(previousHash: string, event: HashedEvent): string {
  // Stream names, ids and types need no escaping in JSON: they are made of safe characters.
  const chained = `["${previousHash}","${event.stream}",${event.revision},"${event.id}","${event.type}",${event.dataJson},${actorJsonOf(event.actor)},${event.at}]`
  return hash('sha256', chained, 'base64url')
}
