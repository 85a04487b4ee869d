import type { Event, Frame } from './device.js'

/**
 * Frames of one connection that name a place to resume from which is ahead of what was sent or announced by then.
 * `all`: every fact of the conversations that the device should have.
 */
export function placesAhead(frames: readonly Frame[], all: readonly Event[]): string[] {
  const from = frames.find(({ type }) => type === 'ok')!.position!
  const owed = all.filter(({ position }) => position > from).sort((one, other) => (one.position < other.position ? -1 : 1))
  const had = new Set<string>()
  const announced = new Map<string, number>()
  const ahead: string[] = []
  let covered = 0
  for (const { type, events = [], conversationId = '', seq = -1, resume } of frames) {
    if (resume === undefined) continue
    for (const event of events) had.add(event.position)
    if (type === 'head') announced.set(conversationId, Math.max(seq, announced.get(conversationId) ?? -1))
    const isTold = (event: Event) => had.has(event.position) || event.seq <= (announced.get(event.conversationId) ?? -1)
    while (covered < owed.length && isTold(owed[covered]!)) covered += 1
    const next = owed[covered]
    if (next && next.position <= resume)
      ahead.push(`${type} names ${resume}, but seq ${next.seq} of ${next.conversationId} at ${next.position} was not told yet`)
  }
  return ahead
}
