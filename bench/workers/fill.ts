/** Writes conversations straight into the log of a server that is stopped: valid events in their hash chain, nobody decides. */
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { LogWriter } from '../../test/support/log-writer.js'
import type { FilledConversation } from '../convolog.js'
import { logger, tell, withPostgresIn } from './parts.js'

const EVENTS_PER_APPEND = 1_000
const text = 'x'.repeat(100)

const [dataDir = '', spec = '[]'] = process.argv.slice(2)

await withPostgresIn(dataDir, async (connectionString) => {
  const store = await PostgresEventStore.open({ connectionString, logger })
  const writer = new LogWriter(store)
  for (const conversation of JSON.parse(spec) as FilledConversation[]) await fill(writer, conversation)
  await store.close()
  tell({ position: writer.position })
})

/** The first member says most of it, each of the others a two-hundredth. */
async function fill(writer: LogWriter, { conversationId, memberIds, messages }: FilledConversation): Promise<void> {
  await writer.created(conversationId, memberIds)
  let said = 0
  const say = async (userId: string, count: number) => {
    const events = Array.from({ length: count }, () => writer.message(conversationId, text, { clientMessageId: `filled${said++}` }))
    if (count > 0) await writer.did(conversationId, userId, ...events)
  }
  while (said < messages) {
    const count = Math.min(EVENTS_PER_APPEND, messages - said)
    const byOthers = Math.floor(count / 200)
    await say(memberIds[0]!, count - byOthers * (memberIds.length - 1))
    for (const userId of memberIds.slice(1)) await say(userId, byOthers)
  }
}
