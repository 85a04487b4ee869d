/** Holds what a device sees of one conversation against the contract: dense seqs, or a head where something is left out. */
export class Follower {
  /** All up to here was seen or announced. */
  seen: number

  constructor(seen: number) {
    this.seen = seen
  }

  takeEvents(firstSeq: number, lastSeq: number): void {
    if (firstSeq !== this.seen + 1) throw new Error(`seq ${firstSeq} came after ${this.seen}: lost, doubled or out of order`)
    this.seen = lastSeq
  }

  /** Gives whether it announces more than was known: a device that becomes active may hear again where it is. */
  takeHead(seq: number): boolean {
    if (seq < this.seen) throw new Error(`a head of ${seq} came after ${this.seen}`)
    const isNews = seq > this.seen
    this.seen = seq
    return isNews
  }
}
