/** (e) The log by itself: appending through the adapter, and opening a conversation that is not in memory. */
import { type Row, milliseconds, percent, rate, times } from './figures.js'
import { Program } from './processes.js'
import { worker } from './worker.js'

export async function benchLog(): Promise<Row[]> {
  const append = await new Program([worker('append')]).result<{ perSecond: number; rawPerSecond: number }>()
  const open = await new Program([worker('cold-open')]).result<{ short: number; long: number; written: number; longEvents: number }>()
  return [
    {
      what: '(e) append alone',
      figure: rate(append.perSecond, 'events'),
      raw: rate(append.rawPerSecond, 'rows'),
      ratio: percent(append.perSecond / append.rawPerSecond),
    },
    {
      what: `    cold open, ${open.longEvents.toLocaleString('en')} events`,
      figure: `p50 ${milliseconds(open.long)}`,
      ratio: `${times(open.long / open.short)} of 1,000 events (${milliseconds(open.short)})`,
      goal: 'the same',
    },
    { what: '    one conversation, written by itself', figure: rate(open.written, 'messages') },
  ]
}
