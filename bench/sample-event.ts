/** The event that the benches of a log append: a text of 100 characters. */
import { randomUUID } from 'node:crypto'
import { type EventMetadata, ProposedEvent } from '../src/domain/event-store.js'

export const data = { clientMessageId: 'm1234', ordinal: 1234, content: { type: 'text', text: 'x'.repeat(100) } }
export const dataJson = JSON.stringify(data)
export const metadata: EventMetadata = {
  actor: { userId: 'u1' },
  at: 1_700_000_000_000,
  correlationId: randomUUID(),
  causationId: null,
  schemaVersion: 1,
  hash: 'x'.repeat(43),
}

/** So many of them, to follow `after`. */
export const proposedAfter = (stream: string, after: number, count: number): ProposedEvent[] =>
  Array.from(
    { length: count },
    (_, i) => new ProposedEvent({ id: randomUUID(), type: 'MessageSent', stream, revision: after + 1 + i, data, dataJson, metadata }),
  )
