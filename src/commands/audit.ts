import { openEventStore } from '../app.js'
import type { Config } from '../config.js'
import type { EventStore } from '../domain/event-store.js'
import { chainHash } from '../domain/hash-chain.js'
import type { Logger } from '../domain/logger.js'
import { StartError } from '../start-error.js'

const PAGE_EVENTS = 1_000
/** More broken places than this are not listed one by one. */
const FOUND_MAX = 20

export interface AuditReport {
  events: number
  streams: number
  /** Sentences; empty where every chain holds. */
  broken: string[]
}

/** `convolog audit`: says how much was checked. @throws {StartError} that names what is broken */
export async function auditLog(config: Config, connectionString: string, logger: Logger): Promise<void> {
  const store = await openEventStore(config, connectionString, logger)
  try {
    const { events, streams, broken } = await audit(store)
    if (broken.length > 0)
      throw new StartError(
        `${events} events of ${streams} streams were checked, and these are not as they were written:\n${broken.join('\n')}`,
      )
    console.log(`${events} events of ${streams} streams were checked: every one is as it was written.`)
  } finally {
    await store.close()
  }
}

/**
 * Reads the whole log and checks of every stream that its revisions are dense and that each event's hash follows from
 * the one before it (hash-chain.ts): what was changed, taken out or put in afterwards is found.
 * @throws {StoreUnavailable}
 */
export async function audit(store: EventStore): Promise<AuditReport> {
  const ends = new Map<string, { revision: number; hash: string }>()
  const broken: string[] = []
  let events = 0
  for (let after: string | undefined; ; ) {
    const page = await store.readAll(after, { prefixes: ['conversation-', 'receipts-', 'user-'], limit: PAGE_EVENTS })
    for (const event of page.events) {
      const { stream, revision, id, type, dataJson, metadata } = event
      const before = ends.get(stream) ?? { revision: -1, hash: '' }
      const expected = chainHash(before.hash, { stream, revision, id, type, dataJson, actor: metadata.actor, at: metadata.at })
      if (revision !== before.revision + 1) broken.push(`${stream}: revision ${revision} follows ${before.revision}`)
      else if (expected !== metadata.hash) broken.push(`${stream}: revision ${revision} is not what was written there`)
      ends.set(stream, { revision, hash: metadata.hash })
      events += 1
    }
    if (page.isEnd) return { events, streams: ends.size, broken: broken.slice(0, FOUND_MAX) }
    after = page.position
  }
}
