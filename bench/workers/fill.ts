/** Writes conversations straight into the log of a server that is stopped: valid events in their hash chain, nobody decides. */
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { LogWriter } from '../../test/support/log-writer.js'
import type { FilledConversation } from '../convolog.js'
import { logger, tell, withPostgresIn } from './parts.js'

const EVENTS_PER_APPEND = 1_000
const said = 'x'.repeat(100)

const [dataDir = '', spec = '[]'] = process.argv.slice(2)

await withPostgresIn(dataDir, async (connectionString) => {
  const store = await PostgresEventStore.open({ connectionString, logger })
  const writer = new LogWriter(store)
  for (const conversation of JSON.parse(spec) as FilledConversation[]) await fill(writer, conversation)
  await store.close()
  tell({ position: writer.position })
})

async function fill(writer: LogWriter, { conversationId, memberIds, messages }: FilledConversation): Promise<void> {
  await writer.created(conversationId, memberIds)
  for (let from = 0; from < messages; from += EVENTS_PER_APPEND) {
    const count = Math.min(EVENTS_PER_APPEND, messages - from)
    const events = Array.from({ length: count }, (_, i) => writer.message(conversationId, said, { clientMessageId: `m${from + i}` }))
    await writer.did(conversationId, memberIds[0]!, ...events)
  }
}
