import { createHash } from 'node:crypto'

export interface ChainedEvent {
  stream: string
  revision: number
  id: string
  type: string
  dataJson: string
  metadata: { actor: unknown; at: number; hash: string }
}

/** The revision of the first event that does not fit its hash and predecessor, or undefined. Written from docs/events.md, not from the code. */
export function findBrokenLink(events: readonly ChainedEvent[]): number | undefined {
  let previous = ''
  for (const [index, { stream, revision, id, type, dataJson, metadata }] of events.entries()) {
    const link = [previous, stream, revision, id, type, JSON.parse(dataJson), metadata.actor, metadata.at]
    const hash = createHash('sha256').update(JSON.stringify(link), 'utf8').digest('base64url')
    if (hash !== metadata.hash || revision !== index) return index
    previous = metadata.hash
  }
  return undefined
}
