import type { Position } from '../domain/event-store.js'
import type { RebuildProgress } from './rebuild.js'

const BAR_WIDTH = 30
const LINE_INTERVAL_MS = 2_000

/** Prints how far a replay is: a bar that moves on a terminal, else a line now and then. */
export function printProgress(output: NodeJS.WritableStream & { isTTY?: boolean }): (progress: RebuildProgress) => void {
  let printedAt = -LINE_INTERVAL_MS
  return (progress) => {
    if (output.isTTY === true)
      return void output.write(`\r\u001b[K${bar(progress)} ${describe(progress)}${progress.state === 'done' ? '\n' : ''}`)
    if (progress.state === 'reading' && performance.now() - printedAt < LINE_INTERVAL_MS) return
    printedAt = performance.now()
    output.write(`${describe(progress)}\n`)
  }
}

function bar({ done = 0 }: RebuildProgress): string {
  const filled = Math.round(done * BAR_WIDTH)
  return `[${'█'.repeat(filled)}${'·'.repeat(BAR_WIDTH - filled)}]`
}

function describe({ events, eventsPerSecond, done, leftMs, state }: RebuildProgress): string {
  const number = (value: number) => Math.round(value).toLocaleString('en')
  const parts = [`${number(events)} events`, `${number(eventsPerSecond)}/s`]
  if (state === 'done') return [...parts, 'done'].join(', ')
  if (done !== undefined) parts.unshift(`${Math.floor(done * 100)} %`)
  if (state === 'indexing' || state === 'swapping') parts.push(state)
  else if (leftMs !== undefined) parts.push(`${duration(leftMs)} left`)
  return parts.join(', ')
}

function duration(ms: number): string {
  const seconds = Math.ceil(ms / 1_000)
  return seconds < 120 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`
}

/** For stores whose positions are numbers, or begin with one: KurrentDB's are `commit/prepare`. */
export function numericProgress(position: Position, head: Position): number | undefined {
  const [at, end] = [Number.parseInt(position, 10), Number.parseInt(head, 10)]
  if (position === '') return 0
  if (!Number.isFinite(at) || !Number.isFinite(end)) return undefined
  return end === 0 ? 1 : Math.min(1, at / end)
}
