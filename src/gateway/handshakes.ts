import type { IncomingMessage } from 'node:http'
import proxyaddr from '@fastify/proxy-addr'

export interface HandshakesOptions {
  /** Sockets of one address whose hello is not answered yet. 0: no limit. */
  perAddressMax: number
  /** Of all addresses. 0: no limit. */
  max: number
  /** Addresses and networks whose `X-Forwarded-For` is believed. */
  trustedProxies: readonly string[]
}

/** Counts the sockets whose hello is not answered yet: nobody knows who they are, and so their addresses are bounded. */
export class Handshakes {
  readonly #perAddressMax: number
  readonly #max: number
  readonly #isTrusted: (address: string, hop: number) => boolean
  readonly #byAddress = new Map<string, number>()
  #count = 0

  constructor({ perAddressMax, max, trustedProxies }: HandshakesOptions) {
    this.#perAddressMax = perAddressMax || Number.POSITIVE_INFINITY
    this.#max = max || Number.POSITIVE_INFINITY
    this.#isTrusted = trustedProxies.length === 0 ? () => false : proxyaddr.compile([...trustedProxies])
  }

  /** Where a request comes from; of one that a trusted proxy passed on, where that says. */
  addressOf(request: IncomingMessage): string {
    // A socket that has gone has no address any more.
    if (request.socket.remoteAddress === undefined) return ''
    return proxyaddr(request, this.#isTrusted)
  }

  /** Counts one more, where there is room: the function that says once that it is over. */
  begin(address: string): (() => void) | undefined {
    const own = this.#byAddress.get(address) ?? 0
    if (own >= this.#perAddressMax || this.#count >= this.#max) return undefined
    this.#byAddress.set(address, own + 1)
    this.#count += 1
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      this.#end(address)
    }
  }

  #end(address: string): void {
    this.#count -= 1
    const own = this.#byAddress.get(address)! - 1
    if (own === 0) this.#byAddress.delete(address)
    else this.#byAddress.set(address, own)
  }
}
