/** What nodes tell each other beside the log. All of it may be lost. */
export type Signal = { type: 'typing'; conversationId: string; userId: string; on: boolean }

export interface Signals {
  /** To all other nodes; dropped where they can't be reached. */
  send(signal: Signal): void
  /** From another node. */
  onSignal: (signal: Signal) => void
}

/** Of a node that is alone. */
export const noSignals = (): Signals => ({ send() {}, onSignal() {} })
