import type { SharedUse } from '../load/load.js'
import { useKey } from './keys.js'
import type { RedisLink } from './link.js'

/** What callers use on all nodes, counted in Redis by its clock. */
export class RedisSharedUse implements SharedUse {
  readonly #link: RedisLink

  constructor(link: RedisLink) {
    this.#link = link
  }

  /** @throws {RedisGone} */
  async add(account: string, units: number): Promise<number> {
    const [total] = await this.#link.batch(({ script }) => script('use', [useKey(account)], [Math.ceil(units)]))
    return Number(total)
  }
}
