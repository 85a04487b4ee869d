/** `npm run simulate`: runs seeds, says which of them show what no client may see, and replays one with all that happened. */
import { parseArgs } from 'node:util'
import { availableParallelism } from 'node:os'
import { run } from './simulation.js'
import { type Finding, isWantedBy, shrink, survey, surveyOnThreads } from './survey.js'

/** Each thread compiles the code for itself, which costs as much as some hundred seeds. */
const SEEDS_PER_THREAD_MIN = 1_000

const { values } = parseArgs({
  options: {
    /** How many, from `from` on. */
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    /** Bounds the threads that share the seeds. */
    threads: { type: 'string', default: String(availableParallelism()) },
    /** Stops at the first seed that fails; on one thread. */
    first: { type: 'boolean', default: false },
    /** Replays this one. */
    seed: { type: 'string' },
    /** Leaves out the steps of `seed` that its fault does not need. */
    shrink: { type: 'boolean', default: false },
    /** Counts only faults whose kind and text contain this. */
    matching: { type: 'string', default: '' },
    /** Invariants that are switched off, by kind, and are to be held all the same; `all` for all. */
    with: { type: 'string', multiple: true, default: [] },
  },
})
const wanted = { asked: values.with, matching: values.matching }
const isWanted = isWantedBy(wanted)

if (values.seed === undefined) await runMany(Number(values.from), Number(values.seeds))
else await replay(Number(values.seed))

async function runMany(from: number, count: number): Promise<void> {
  const [beganAt, cpuBefore] = [performance.now(), process.cpuUsage()]
  const options = { from, count, wanted }
  const { figures, findings } = values.first
    ? await survey({ ...options, stopsAtFirst: true })
    : await surveyOnThreads(options, Math.min(Number(values.threads), Math.ceil(count / SEEDS_PER_THREAD_MIN)))
  const { seeds, events, jobs, failed } = figures
  const { user, system } = process.cpuUsage(cpuBefore)
  const seconds = (performance.now() - beganAt) / 1_000
  console.log(
    `${seeds} seeds, ${events} events in the logs, ${jobs} jobs, ${failed} seeds failed; ` +
      `${seconds.toFixed(1)} s (${(seeds / seconds).toFixed(0)} runs/s), ${((user + system) / 1_000 / seeds).toFixed(1)} ms of CPU a run`,
  )
  for (const finding of findings) console.log(told(finding))
  if (failed > 0) process.exitCode = 1
}

function told({ kind, count, seed, text }: Finding): string {
  return `${kind}: ${count} seeds; the first is ${seed}: ${text.slice(0, 400)}`
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
