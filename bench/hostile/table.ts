/** What the bench prints. */
import { type Row, megabytes, milliseconds, percent, times } from '../figures.js'
import type { Held } from './controller.js'
import { kinds } from './kinds.js'
import type { HostileCounts, OrdinaryPhase, OrdinaryReport } from './messages.js'
import type { Verdict } from './verify.js'
import type { Watch } from './watch.js'

const PARTS = 10
const RSS_BYTES_MAX = 900_000_000
/** Of the answers: these are no refusals. */
const TAKEN = ['2xx', 'not read', 'no hello']

export interface Attack {
  clients: number
  counts: HostileCounts
  held: Held | undefined
  seconds: number
}

export interface Outcome {
  mode: 'limits' | 'fifth' | 'quiet'
  report: OrdinaryReport
  attack: Attack | undefined
  watch: Watch
  verdict: Verdict | void
  /** How the server ended, if it did. */
  ended: string | undefined
}

export function rowsOf({ mode, report, attack, watch, verdict, ended }: Outcome): Row[] {
  const { quiet, attack: attacked } = report.phases
  const rows: Row[] = []
  if (quiet) rows.push(...rowsOfPhase('quiet', quiet))
  if (attacked && attack) {
    rows.push(...rowsOfPhase('attack', attacked, mode === 'fifth' ? 'none' : '≤ 1 %'), rowOfParts(attacked.ackMs))
    rows.push(rowOfRatio(quiet?.ackMs ?? [], attacked.ackMs, mode === 'fifth' ? '≤ × 2' : 'p99 ≤ 1 s'), ...rowsOfAttack(attack))
  }
  return [...rows, ...rowsOfServer(watch, ended), ...(verdict ? rowsOfVerdict(verdict, report.unanswered) : [])]
}

/** The answers come in their order: shows whether only the beginning is slow. */
function rowOfParts(ackMs: readonly number[]): Row {
  const each = Math.ceil(ackMs.length / PARTS)
  const parts = Array.from({ length: PARTS }, (_, i) => ackMs.slice(i * each, (i + 1) * each))
  const row = (share: number) => parts.map((part) => Math.round(at(part, share))).join(' ')
  return { what: `    each ${PARTS}th, p50 · p99 in ms`, figure: `${row(0.5)} · ${row(0.99)}` }
}

function rowOfRatio(quietMs: readonly number[], attackMs: readonly number[], goal: string): Row {
  const [before, during] = [at(quietMs, 0.99), at(attackMs, 0.99)]
  return {
    what: 'p99 of a send, quiet → attack',
    figure: `${milliseconds(before)} → ${milliseconds(during)}`,
    ratio: times(during / before),
    goal,
  }
}

function rowsOfServer({ rssBytesMax, loopDelayMsMax, unanswered }: Watch, ended: string | undefined): Row[] {
  return [
    { what: 'the server', figure: ended === undefined ? 'lived' : `ENDED with ${ended}`, goal: 'lives' },
    { what: '    RSS at most', figure: megabytes(rssBytesMax), goal: `≤ ${megabytes(RSS_BYTES_MAX)}` },
    { what: '    loop delay at most', figure: `${milliseconds(loopDelayMsMax)}; /metrics was silent ${unanswered} times` },
  ]
}

function rowsOfVerdict({ acknowledged, lost, doubled, reordered, holes }: Verdict, unanswered: number): Row[] {
  return [
    { what: 'acknowledged to ordinary users', figure: `${acknowledged.toLocaleString('en')}, ${unanswered} without an answer` },
    { what: '    lost, doubled, out of order, holes', figure: [lost, doubled, reordered, holes].join(', '), goal: '0' },
  ]
}

function rowsOfPhase(name: string, { sends, inboxes, ackMs, inboxMs, errors }: OrdinaryPhase, goal?: string): Row[] {
  const failed = Object.values(errors).reduce((sum, n) => sum + n, 0)
  const latencies = (values_: readonly number[]) =>
    `p50 ${milliseconds(at(values_, 0.5))}, p99 ${milliseconds(at(values_, 0.99))}, longest ${milliseconds(at(values_, 1))}`
  return [
    { what: `${name}: ${sends.toLocaleString('en')} sends, to ok`, figure: latencies(ackMs) },
    { what: `    ${inboxes.toLocaleString('en')} inboxes`, figure: latencies(inboxMs) },
    {
      what: '    errors',
      figure: failed === 0 ? 'none' : `${failed}: ${byCount(errors)}`,
      ratio: `${((failed / (sends + inboxes)) * 100).toFixed(2)} %`,
      ...(goal === undefined ? {} : { goal }),
    },
  ]
}

function rowsOfAttack({ clients, counts, held, seconds }: Attack): Row[] {
  const total = sum(Object.values(counts).flatMap((byCode) => Object.values(byCode)))
  return [
    {
      what: `${clients.toLocaleString('en')} hostile clients`,
      figure: `${total.toLocaleString('en')} requests in ${Math.round(seconds)} s, ${Math.round(total / seconds).toLocaleString('en')}/s`,
      ...(held ? { ratio: `busiest core ${percent(held.busiest)}` } : {}),
    },
    ...Object.entries(counts).map(([kind, byCode]) => ({
      what: `    ${kind}: ${kinds[kind]!.what}`,
      figure: byCount(byCode),
      ratio: `refused ${percent(refusedOf(byCode) / Math.max(1, sum(Object.values(byCode))))}`,
    })),
  ]
}

const refusedOf = (byCode: Record<string, number>) => sum(Object.entries(byCode).map(([code, n]) => (TAKEN.includes(code) ? 0 : n)))

const byCount = (counts: Record<string, number>) =>
  Object.entries(counts)
    .toSorted(([, a], [, b]) => b - a)
    .map(([code, n]) => `${code} ${n.toLocaleString('en')}`)
    .join(', ')

const sum = (numbers: readonly number[]) => numbers.reduce((total, n) => total + n, 0)

function at(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
