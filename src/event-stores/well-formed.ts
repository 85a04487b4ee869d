import type { Append } from '../domain/event-store.js'

const uuidForm = /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/

/** What every adapter relies on. @throws {TypeError} */
export function requireWellFormed({ stream, expectedRevision, events }: Append): void {
  if (events.length === 0) throw new TypeError('An append has at least one event')
  for (let i = 0; i < events.length; i++) {
    const event = events[i]!
    if (event.stream !== stream || event.revision !== expectedRevision + 1 + i)
      throw new TypeError(`Event ${i} is not for revision ${expectedRevision + 1 + i} of ${stream}`)
    if (!uuidForm.test(event.id)) throw new TypeError(`Not a UUID in lower case: ${event.id}`)
  }
}
