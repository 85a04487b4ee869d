/** Holds what ordinary users were told against the log. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Convolog } from '../convolog.js'
import type { Acknowledged, OrdinaryReport } from './messages.js'

const RETRY_MS = 500
const TRIES_MAX = 120

export interface Verdict {
  acknowledged: number
  lost: number
  doubled: number
  reordered: number
  holes: number
}

interface Event {
  seq: number
  data: { clientMessageId?: string }
}

export async function verify(convolog: Convolog, { acknowledged }: OrdinaryReport): Promise<Verdict> {
  const verdict: Verdict = { acknowledged: 0, lost: 0, doubled: 0, reordered: 0, holes: 0 }
  const logs = new Map<string, Map<string, number>>()
  for (const { userId, messages } of acknowledged) {
    verdict.acknowledged += messages.length
    for (const conversationId of new Set(messages.map((message) => message.conversationId))) {
      if (!logs.has(conversationId)) logs.set(conversationId, seqsOf(await eventsOf(convolog, userId, conversationId), verdict))
      const own = messages.filter((message) => message.conversationId === conversationId)
      verdict.lost += own.filter(({ clientMessageId, seq }) => logs.get(conversationId)!.get(clientMessageId) !== seq).length
      verdict.reordered += reorderedIn(own)
    }
  }
  return verdict
}

/** A sender's messages lie in the log as they were sent, apart from those that had to be sent again. */
function reorderedIn(messages: readonly Acknowledged[]): number {
  const numberOf = ({ clientMessageId }: Acknowledged) => Number(clientMessageId.split('-').at(-1))
  const bySending = messages.filter(({ isFirstTry }) => isFirstTry).toSorted((a, b) => numberOf(a) - numberOf(b))
  return bySending.filter(({ seq }, i) => i > 0 && seq < bySending[i - 1]!.seq).length
}

function seqsOf(events: readonly Event[], verdict: Verdict): Map<string, number> {
  const seqs = new Map<string, number>()
  for (const [i, { seq, data }] of events.entries()) {
    if (seq !== i) verdict.holes += 1
    if (data.clientMessageId === undefined) continue
    if (seqs.has(data.clientMessageId)) verdict.doubled += 1
    seqs.set(data.clientMessageId, seq)
  }
  return seqs
}

async function eventsOf(convolog: Convolog, userId: string, conversationId: string): Promise<Event[]> {
  const events: Event[] = []
  for (let tries = 0; tries < TRIES_MAX && convolog.program.ended === undefined; ) {
    const path = `/conversations/${conversationId}/events?limit=200&after=${events.at(-1)?.seq ?? -1}`
    const page = await convolog.call<{ items: Event[] }>(userId, 'GET', path).catch(() => undefined)
    if (page?.items.length === 0) return events
    if (page) events.push(...page.items)
    else {
      tries += 1
      await sleep(RETRY_MS)
    }
  }
  throw new Error(`${conversationId} could not be read after the attack`)
}
