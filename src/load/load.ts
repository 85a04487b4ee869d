/** What REST and WebSocket share to keep a node answering: budgets of callers, turns by cost, and a guard against overload. */
import { lruMap } from '../domain/lru-map.js'
import { Refusal } from '../domain/errors.js'
import { Account } from './account.js'
import { Overload } from './overload.js'
import { TURNS, Turns, type TurnsOptions } from './turns.js'

export const USER_UNITS_PER_SECOND = 1_000
export const APP_UNITS_PER_SECOND = 5_000
const ACCOUNTS_MAX = 50_000
const REFUSED_RETRY_MS = 1_000

/** What callers use on all nodes together, as far as this one knows. */
export interface SharedUse {
  /** Adds to what an account uses. Gives how much that is on all nodes together, in the second that runs. */
  add(account: string, units: number): Promise<number>
}

export interface LoadOptions {
  sharedUse?: SharedUse | undefined
  userUnitsPerSecond?: number | undefined
  turns?: Partial<TurnsOptions>
  /** False where the loop is not the server's own. */
  isGuarded?: boolean | undefined
  now?: () => number
}

/** What this node has told of an account, and heard. */
interface Told {
  untoldUnits: number
  isTelling: boolean
  /** Of all nodes, when this one asked last. */
  total: number
}

export class Load {
  readonly turns: Turns
  readonly overload: Overload
  readonly #options: LoadOptions
  readonly #now: () => number
  readonly #accounts = lruMap<string, Account>(ACCOUNTS_MAX)
  readonly #told = new WeakMap<Account, Told>()

  constructor(options: LoadOptions = {}) {
    this.#options = options
    this.#now = options.now ?? (() => performance.now())
    this.turns = new Turns({ ...options.turns, now: this.#now })
    this.overload = new Overload(this.turns, options.turns?.bytesMax ?? TURNS.bytesMax, options.isGuarded ?? true)
  }

  start(): void {
    this.overload.start()
  }

  stop(): void {
    this.overload.stop()
  }

  ofUser(userId: string): Account {
    return this.#accountOf(`u:${userId}`, true, this.#options.userUnitsPerSecond ?? USER_UNITS_PER_SECOND)
  }

  ofApp(app: string): Account {
    return this.#accountOf(`a:${app}`, false, APP_UNITS_PER_SECOND)
  }

  /** Lets a request in and charges it. @throws {Refusal} rate_limited: the account is in debt, or the node refuses those who use most */
  admit(account: Account, units: number): void {
    if (account.unitsLeft < 1) {
      account.note(1)
      throw new Refusal(
        'rate_limited',
        `This caller may use ${account.unitsPerSecond} units a second and has used them: nothing was done, send it again later.`,
        { retryAfterMs: account.retryAfterMs },
      )
    }
    this.requireCalm(account)
    this.charge(account, units)
  }

  /** @throws {Refusal} rate_limited: the node is overloaded, and this is one of the callers who use most */
  requireCalm(account: Account): void {
    if (!this.overload.refuses(account.recentUnitsPerSecond)) return
    account.note(1)
    throw new Refusal('rate_limited', 'This server is busy, and you use more of it than others: nothing was done, send it again later.', {
      retryAfterMs: REFUSED_RETRY_MS * (1 + Math.random()),
    })
  }

  /** Charges what an answer turned out to cost beyond what was known before. */
  charge(account: Account, units: number): void {
    if (units <= 0) return
    account.charge(units)
    if (this.#options.sharedUse) void this.#tell(this.#options.sharedUse, account, units)
  }

  #accountOf(key: string, isUser: boolean, unitsPerSecond: number): Account {
    let account = this.#accounts.get(key)
    if (!account) this.#accounts.set(key, (account = new Account(key, isUser, unitsPerSecond, this.#now)))
    return account
  }

  /** Nobody waits for this: what other nodes have let in counts from the next request on, and without them each limits for itself. */
  async #tell(sharedUse: SharedUse, account: Account, units: number): Promise<void> {
    let told = this.#told.get(account)
    if (!told) this.#told.set(account, (told = { untoldUnits: 0, isTelling: false, total: 0 }))
    told.untoldUnits += units
    if (told.isTelling) return
    told.isTelling = true
    try {
      while (told.untoldUnits > 0) {
        const own = told.untoldUnits
        told.untoldUnits = 0
        const total = await sharedUse.add(account.key, own)
        // A total that is smaller than before is that of another second.
        const foreign = total >= told.total + own ? total - told.total - own : total - own
        told.total = total
        if (foreign > 0) account.charge(foreign)
      }
    } catch {
      // Counted here.
    } finally {
      told.isTelling = false
    }
  }
}
