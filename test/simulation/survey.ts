import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { isHeld, run } from './simulation.js'
import type { Violation } from './world.js'

/** One kind of fault over many seeds. */
export interface Finding {
  kind: string
  /** How many seeds show it. */
  count: number
  /** The first that does. */
  seed: number
  text: string
}

export interface Survey {
  findings: Finding[]
  figures: { seeds: number; events: number; jobs: number; failed: number }
}

export interface SurveyOptions {
  from: number
  count: number
  /** Runs no more seeds once one has failed. */
  stopsAtFirst?: boolean
  wanted?: Wanted
}

/** Which violations are counted. */
export interface Wanted {
  /** Kinds that are switched off and are held all the same. */
  asked?: readonly string[]
  /** A part of kind and text. */
  matching?: string
}

export function isWantedBy({ asked = [], matching = '' }: Wanted): (violation: Violation) => boolean {
  const isHeldHere = isHeld(asked)
  return (violation) => isHeldHere(violation) && `${violation.kind}: ${violation.text}`.includes(matching)
}

/** Runs seed after seed, and counts what they show. */
export async function survey({ from, count, stopsAtFirst = false, wanted = {} }: SurveyOptions): Promise<Survey> {
  const isWanted = isWantedBy(wanted)
  const findings = new Map<string, Finding>()
  const figures = { seeds: 0, events: 0, jobs: 0, failed: 0 }
  for (let seed = from; seed < from + count && !(stopsAtFirst && figures.failed > 0); seed++) {
    const result = await run({ seed })
    const violations = result.violations.filter(isWanted)
    figures.seeds += 1
    figures.events += result.events
    figures.jobs += result.jobs
    if (violations.length > 0) figures.failed += 1
    for (const [kind, text] of new Map(violations.toReversed().map((violation) => [violation.kind, violation.text])))
      add(findings, { kind, count: 1, seed, text })
  }
  return { findings: [...findings.values()], figures }
}

/** The same on `workers` threads, each of which runs a part of the seeds. */
export async function surveyOnThreads(options: SurveyOptions, workers: number): Promise<Survey> {
  const { from, count } = options
  const startOf = (n: number) => from + Math.floor((count * n) / workers)
  const parts = Array.from({ length: workers }, (_, n) => onThread({ ...options, from: startOf(n), count: startOf(n + 1) - startOf(n) }))
  const findings = new Map<string, Finding>()
  const figures = { seeds: 0, events: 0, jobs: 0, failed: 0 }
  for (const part of await Promise.all(parts)) {
    for (const name of ['seeds', 'events', 'jobs', 'failed'] as const) figures[name] += part.figures[name]
    for (const finding of part.findings) add(findings, finding)
  }
  return { findings: [...findings.values()], figures }
}

async function onThread(options: SurveyOptions): Promise<Survey> {
  const worker = new Worker(new URL('survey-worker.js', import.meta.url), { workerData: options })
  const [answer] = (await once(worker, 'message')) as [Survey]
  return answer
}

/** The seeds come in their order: the first that shows a kind is the one that is told. */
function add(findings: Map<string, Finding>, finding: Finding): void {
  const known = findings.get(finding.kind)
  if (known) known.count += finding.count
  else findings.set(finding.kind, finding)
}

/** The steps of a seed that can be left out without losing its first fault: halves first, then smaller pieces, then single ones. */
export async function shrink(seed: number, isWanted: (violation: Violation) => boolean): Promise<Set<number>> {
  const whole = await run({ seed })
  const kind = whole.violations.find(isWanted)?.kind
  const skipped = new Set<number>()
  if (kind === undefined) return skipped
  for (let size = whole.steps >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at < whole.steps; at += size) {
      const piece = Array.from({ length: size }, (_, i) => at + i).filter((step) => step < whole.steps && !skipped.has(step))
      if (piece.length === 0) continue
      const { violations } = await run({ seed, skipped: new Set([...skipped, ...piece]) })
      if (violations.some((violation) => violation.kind === kind)) for (const step of piece) skipped.add(step)
    }
  }
  return skipped
}
