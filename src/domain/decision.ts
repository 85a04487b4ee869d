/** What a decider answers; a refusal is thrown. */
export type Decision<Event> =
  | { kind: 'events'; events: readonly Event[] }
  /** It is so already: nothing is appended. */
  | { kind: 'unchanged' }
  /** This message was sent before, at `seq`. */
  | { kind: 'resent'; seq: number }

export const unchanged: Decision<never> = { kind: 'unchanged' }
export const decided = <Event>(...events: Event[]): Decision<Event> => (events.length === 0 ? unchanged : { kind: 'events', events })
