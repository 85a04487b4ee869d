/** `npm run simulate`: runs seeds, says which of them show what no client may see, and replays one with all that happened. */
import { parseArgs } from 'node:util'
import { type Finding, shrink, survey } from './survey.js'
import { isHeld, run } from './simulation.js'
import type { Violation } from './world.js'

const { values } = parseArgs({
  options: {
    /** How many, from `from` on. */
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    /** Stops at the first seed that fails. */
    first: { type: 'boolean', default: false },
    /** Replays this one. */
    seed: { type: 'string' },
    /** Leaves out the steps of `seed` that its fault does not need. */
    shrink: { type: 'boolean', default: false },
    /** Invariants that are switched off, by kind, and are to be held all the same; `all` for all. */
    /** Counts only faults whose kind and text contain this. */
    matching: { type: 'string', default: '' },
    with: { type: 'string', multiple: true, default: [] },
  },
})
const isHeldHere = isHeld(values.with)
const isWanted = (violation: Violation) => isHeldHere(violation) && `${violation.kind}: ${violation.text}`.includes(values.matching)

if (values.seed === undefined) await runMany(Number(values.from), Number(values.seeds))
else await replay(Number(values.seed))

async function runMany(from: number, count: number): Promise<void> {
  const { figures, findings } = await survey({ from, count, stopsAtFirst: values.first, isWanted })
  const { seeds, events, jobs, failed, seconds, cpuSeconds } = figures
  console.log(
    `${seeds} seeds, ${events} events in the logs, ${jobs} jobs, ${failed} seeds failed; ` +
      `${seconds.toFixed(1)} s (${(seeds / seconds).toFixed(0)} runs/s), ${((cpuSeconds * 1_000) / seeds).toFixed(1)} ms of CPU a run`,
  )
  for (const finding of findings) console.log(told(finding))
  if (failed > 0) process.exitCode = 1
}

function told({ kind, count, seed, after, text }: Finding): string {
  return `${kind}: ${count} seeds; the first is ${seed}, after ${after}: ${text.slice(0, 400)}`
}

async function replay(seed: number): Promise<void> {
  const skipped = values.shrink ? await shrink(seed, isWanted) : new Set<number>()
  const { trace, violations, steps } = await run({ seed, isTraced: true, skipped })
  const found = violations.filter(isWanted)
  console.log(trace.join('\n'))
  console.log(`${steps - skipped.size} of ${steps} steps; ${found.length} faults`)
  for (const { kind, text } of found) console.log(`${kind}: ${text}`)
  if (found.length > 0) process.exitCode = 1
}
