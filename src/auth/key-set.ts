/** The keys of JWKS_URL, as many calls share them. */
import { type JWTVerifyGetKey, createLocalJWKSet, errors } from 'jose'
import { Refusal, unavailable } from '../domain/errors.js'
import type { Logger } from '../domain/logger.js'

/** One version of the key set; a set that comes again unchanged is the same object. */
export interface Keys {
  readonly find: JWTVerifyGetKey
  readonly text: string
}

export interface KeySetOptions {
  url: string
  logger: Logger
  now: () => number
}

const FETCH_MS_MAX = 5_000
const KEY_SET_BYTES_MAX = 256 * 1024
/** From this age on the set is fetched again while calls go on using it. */
const REFRESH_AFTER_MS = 300_000
/** From this age on a call waits for a newer set: a key that was withdrawn works no longer than this. */
export const KEYS_AGE_MS_MAX = 600_000
/** How long a set serves while its host cannot be reached. */
const UNREACHABLE_MS_MAX = 86_400_000
/** Between two fetches because of a key that the set lacks: anybody can name one. */
const LOOK_AGAIN_PAUSE_MS = 5_000
const RETRY_PAUSE_MS = 1_000

/** Fetches the key set when it is needed, once for all calls that wait, and says in the log when that fails and when it works again. */
export class KeySet {
  readonly #url: string
  readonly #logger: Logger
  readonly #now: () => number
  readonly #stopping = new AbortController()
  #keys: Keys | undefined
  #fetchedAt = 0
  #failedAt: number | undefined
  #lookedAgainAt: number | undefined
  #fetching: Promise<void> | undefined
  #begunCount = 0
  /** The number of the fetch that brought the set. */
  #broughtBy = 0

  constructor({ url, logger, now }: KeySetOptions) {
    this.#url = url
    this.#logger = logger
    this.#now = now
  }

  /** The keys to verify with now. @throws {Refusal} unavailable */
  current(): Keys | Promise<Keys> {
    const keys = this.#keys
    // Where the clock was set back, the age is not known: it counts by how far.
    const ageMs = Math.abs(this.#now() - this.#fetchedAt)
    if (!keys || ageMs >= UNREACHABLE_MS_MAX) return this.#fetchFirst()
    if (ageMs < REFRESH_AFTER_MS) return keys
    const fetching = this.#fetchWhenDue()
    if (ageMs < KEYS_AGE_MS_MAX || this.#failedAt !== undefined || !fetching) return keys
    return fetching.then(() => this.#keys ?? keys)
  }

  /**
   * Runs `check` with the current keys, and again with newer ones where it misses a key or finds that the signature does not fit.
   * Only a set that was asked for after the call came proves that there is no such key.
   * @throws {Refusal} unavailable, or whatever `check` throws
   */
  async verify<Result>(check: (find: JWTVerifyGetKey) => Promise<Result>): Promise<{ result: Result; keys: Keys }> {
    const begunBefore = this.#begunCount
    let keys = await this.current()
    try {
      return { result: await check(keys.find), keys }
    } catch (error) {
      if (!isOfOldKeys(error)) throw error
      const isNewest = this.#keys === keys
      if (isNewest && this.#broughtBy > begunBefore) throw error
      const isProof = isNewest && (await this.#lookAgain(error))
      keys = await this.current()
      return { result: await check(keys.find).catch((again: unknown) => Promise.reject(isProof ? again : tooSoon(again))), keys }
    }
  }

  /** Ends a fetch under way. */
  close(): void {
    this.#stopping.abort()
  }

  /** Whether the set that is there afterwards was asked for by this very call. @throws {Refusal} unavailable */
  async #lookAgain(error: unknown): Promise<boolean> {
    const underway = this.#fetching
    const since = this.#lookedAgainAt === undefined ? Infinity : Math.abs(this.#now() - this.#lookedAgainAt)
    if (!underway && since < LOOK_AGAIN_PAUSE_MS) throw tooSoon(error)
    await (underway ?? this.#fetch().finally(() => (this.#lookedAgainAt = this.#now())))
    if (this.#failedAt !== undefined) throw cannotFetch()
    return !underway
  }

  async #fetchFirst(): Promise<Keys> {
    await this.#fetchWhenDue()
    const ageMs = Math.abs(this.#now() - this.#fetchedAt)
    if (!this.#keys || ageMs >= UNREACHABLE_MS_MAX) throw cannotFetch()
    return this.#keys
  }

  /** Undefined where the last try failed a moment ago. */
  #fetchWhenDue(): Promise<void> | undefined {
    if (this.#fetching) return this.#fetching
    if (this.#failedAt !== undefined && Math.abs(this.#now() - this.#failedAt) < RETRY_PAUSE_MS) return undefined
    return this.#fetch()
  }

  /** Never rejects. */
  #fetch(): Promise<void> {
    const number = ++this.#begunCount
    const fetching = this.#load().then(
      (keys) => {
        this.#keys = keys.text === this.#keys?.text ? this.#keys : keys
        this.#broughtBy = number
        this.#fetchedAt = this.#now()
        if (this.#failedAt !== undefined) this.#logger.info({}, 'JWKS_URL can be fetched again')
        this.#failedAt = undefined
      },
      (error: unknown) => this.#failed(error),
    )
    this.#fetching = fetching.finally(() => {
      this.#fetching = undefined
    })
    return this.#fetching
  }

  #failed(error: unknown): void {
    if (this.#failedAt === undefined && !this.#stopping.signal.aborted) {
      const text = this.#keys
        ? 'its last keys are used for up to a day'
        : "users' tokens signed with its keys are answered with unavailable"
      this.#logger.warn({ reason: reasonOf(error) }, `JWKS_URL cannot be fetched: ${text}`)
    }
    this.#failedAt = this.#now()
  }

  async #load(): Promise<Keys> {
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(FETCH_MS_MAX)])
    const headers = { accept: 'application/json, application/jwk-set+json' }
    const response = await fetch(this.#url, { redirect: 'manual', signal, headers })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new Error(`The answer has the status ${response.status}, not 200.`)
    }
    const text = await readText(response)
    return { text, find: findIn(createLocalJWKSet(JSON.parse(text) as Parameters<typeof createLocalJWKSet>[0])) }
  }
}

async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > KEY_SET_BYTES_MAX) throw new Error(`The answer has more than ${KEY_SET_BYTES_MAX} bytes.`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** A key that the set holds and that cannot be used is the issuer's mistake, and says nothing about the token. */
function findIn(keys: JWTVerifyGetKey): JWTVerifyGetKey {
  return async (header, token) => {
    try {
      return await keys(header, token)
    } catch (error) {
      if (error instanceof errors.JWKSMultipleMatchingKeys)
        throw new Refusal('unauthenticated', 'The token must name its key in the header "kid".', { cause: error })
      if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JOSENotSupported) throw error
      throw unavailable('The key that this token names cannot be used: the key set has to be mended.', error)
    }
  }
}

const isOfOldKeys = (error: unknown) => error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWSSignatureVerificationFailed

/** Whether there is such a key cannot be said yet; that a signature does not fit a key that is there can. */
function tooSoon(error: unknown): unknown {
  if (!(error instanceof errors.JWKSNoMatchingKey)) return error
  return new Refusal('unavailable', 'The key that this token names is not known yet: send the same again in a few seconds.', {
    retryAfterMs: LOOK_AGAIN_PAUSE_MS,
    cause: error,
  })
}

const cannotFetch = () => unavailable('The keys that tokens are verified with cannot be fetched now: send the same again.')

/** The message of a foreign error may repeat the URL; its code does not. */
function reasonOf(error: unknown): string {
  const { name, message, cause } = error as Error & { cause?: { code?: string } }
  if (name === 'TimeoutError') return `no answer within ${FETCH_MS_MAX} ms`
  return cause?.code ?? message
}
