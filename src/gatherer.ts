/** How many questions go out together, at most. */
const BATCH_MAX = 64
/** The bytes that they may come to together: the answer is in memory whole. */
export const BATCH_BYTES_MAX = 4 << 20
/** What an answer is taken for where nothing else is said. */
const ANSWER_BYTES = BATCH_BYTES_MAX / BATCH_MAX

/** By then whoever asked has given up: a question that failed with others is not asked again. */
const RETRY_WITHIN_MS = 5_000

interface Question<Key, Answer> {
  key: Key
  askedAtMs: number
  resolve: (answer: Answer) => void
  reject: (error: unknown) => void
  /** It has failed with others, and is asked again alone. */
  failure?: { error: unknown }
}

/**
 * Questions of one kind that come in the same turn, or while others are being asked, are asked together: when a thousand devices
 * come at once it is a round trip for many of them, and one that comes alone waits for nobody. Where a batch fails, each of its questions
 * is asked once more, alone: one that cannot be answered fails nobody else's.
 */
export class Gatherer<Key, Answer> {
  readonly #ask: (keys: readonly Key[]) => Promise<readonly Answer[]>
  readonly #inFlightMax: number
  readonly #bytesOf: (key: Key) => number
  readonly #now: () => number
  #waiting: Question<Key, Answer>[] = []
  #inFlight = 0

  /** `ask`: gives an answer for each key, in their order; it runs so many times at once, at most. `bytesOf`: what one may come to. */
  constructor(
    ask: (keys: readonly Key[]) => Promise<readonly Answer[]>,
    inFlightMax = 2,
    bytesOf: (key: Key) => number = () => ANSWER_BYTES,
    now: () => number = () => performance.now(),
  ) {
    this.#ask = ask
    this.#inFlightMax = inFlightMax
    this.#bytesOf = bytesOf
    this.#now = now
  }

  /** The answer to one question. */
  find(key: Key): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ key, askedAtMs: this.#now(), resolve, reject })
      if (this.#waiting.length === 1) setImmediate(() => this.#askSome())
    })
  }

  #askSome(): void {
    while (this.#inFlight < this.#inFlightMax) {
      this.#giveUpLate()
      if (this.#waiting.length === 0) return
      this.#inFlight += 1
      void this.#settle(this.#waiting.splice(0, this.#countForOneBatch()))
    }
  }

  /** Those that are asked again come first. */
  #giveUpLate(): void {
    for (let first = this.#waiting[0]; first?.failure && this.#isLate(first); first = this.#waiting[0]) {
      this.#waiting.shift()
      first.reject(first.failure.error)
    }
  }

  #isLate({ askedAtMs }: Question<Key, Answer>): boolean {
    return this.#now() - askedAtMs > RETRY_WITHIN_MS
  }

  /** One that is asked again, or may come to more than a batch should, is asked alone. */
  #countForOneBatch(): number {
    if (this.#waiting[0]?.failure) return 1
    let bytes = 0
    const tooMany = this.#waiting.findIndex(({ key }, i) => i === BATCH_MAX || ((bytes += this.#bytesOf(key)) > BATCH_BYTES_MAX && i > 0))
    return tooMany < 0 ? this.#waiting.length : tooMany
  }

  async #settle(questions: readonly Question<Key, Answer>[]): Promise<void> {
    try {
      const answers = await this.#ask(questions.map(({ key }) => key))
      questions.forEach(({ resolve }, i) => resolve(answers[i]!))
    } catch (error) {
      this.#fail(questions, error)
    }
    this.#inFlight -= 1
    this.#askSome()
  }

  #fail(questions: readonly Question<Key, Answer>[], error: unknown): void {
    const again = questions.length === 1 ? [] : questions.filter((question) => !this.#isLate(question))
    for (const question of questions) if (!again.includes(question)) question.reject(error)
    this.#waiting.unshift(...again.map((question) => ({ ...question, failure: { error } })))
  }
}

/** Rows of many questions as a list for each; `n` counts from 1. */
export function rowsByQuestion<Row extends { n: number }>(rows: readonly Row[], count: number): Row[][] {
  const lists = Array.from({ length: count }, (): Row[] => [])
  for (const row of rows) lists[row.n - 1]!.push(row)
  return lists
}
