import { run } from './simulation.js'
import type { Violation } from './world.js'

/** One kind of fault over many seeds. */
export interface Finding {
  kind: string
  /** How many seeds show it. */
  count: number
  /** The first that does, and how many were run until then. */
  seed: number
  after: number
  text: string
}

export interface Survey {
  findings: Finding[]
  figures: { seeds: number; events: number; jobs: number; failed: number; seconds: number; cpuSeconds: number }
}

/** Runs seed after seed, and counts what they show. */
export async function survey({
  from,
  count,
  stopsAtFirst = false,
  isWanted,
}: {
  from: number
  count: number
  /** Runs no more seeds once one has failed. */
  stopsAtFirst?: boolean
  isWanted: (violation: Violation) => boolean
}): Promise<Survey> {
  const [beganAt, cpuBefore] = [performance.now(), process.cpuUsage()]
  const findings = new Map<string, Finding>()
  let [seeds, events, jobs, failed] = [0, 0, 0, 0]
  for (let seed = from; seed < from + count && !(stopsAtFirst && failed > 0); seed++) {
    const result = await run({ seed })
    const violations = result.violations.filter(isWanted)
    seeds += 1
    events += result.events
    jobs += result.jobs
    if (violations.length > 0) failed += 1
    for (const [kind, text] of new Map(violations.toReversed().map((violation) => [violation.kind, violation.text]))) {
      const finding = findings.get(kind)
      if (finding) finding.count += 1
      else findings.set(kind, { kind, count: 1, seed, after: seed - from + 1, text })
    }
  }
  const { user, system } = process.cpuUsage(cpuBefore)
  const seconds = (performance.now() - beganAt) / 1_000
  return { findings: [...findings.values()], figures: { seeds, events, jobs, failed, seconds, cpuSeconds: (user + system) / 1e6 } }
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
