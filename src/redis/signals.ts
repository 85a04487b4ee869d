import type { Signal, Signals } from '../gateway/signals.js'
import { nodeSignalsChannel, signalsChannel } from './keys.js'
import type { RedisLink } from './link.js'

/** A user came or went. */
export interface PresenceSignal {
  type: 'presence'
  userId: string
  online: boolean
  lastSeenAt: number | null
}

/** To the node that has it: this session's place is taken. */
export interface ReplacedSignal {
  type: 'replaced'
  userId: string
  deviceId: string
  sessionId: string
}

type Message = Signal | PresenceSignal | ReplacedSignal

/** Ids are bounded, and so is what is made of them; anything longer is none of ours. */
const MESSAGE_CHARACTERS_MAX = 1_024

/** Between nodes, by publish and subscribe: soon or never, and never waited for. */
export class RedisSignals implements Signals {
  readonly #link: RedisLink
  readonly #nodeId: string
  onSignal: Signals['onSignal'] = () => {}
  onPresence: (signal: PresenceSignal) => void = () => {}
  onReplaced: (signal: ReplacedSignal) => void = () => {}

  constructor(link: RedisLink, nodeId: string) {
    this.#link = link
    this.#nodeId = nodeId
    link.onMessage = (text) => this.#receive(text)
  }

  send(signal: Signal | PresenceSignal): void {
    this.#publish(signalsChannel, signal)
  }

  sendTo(nodeId: string, signal: ReplacedSignal): void {
    this.#publish(nodeSignalsChannel(nodeId), signal)
  }

  #publish(channel: string, message: Message): void {
    const text = JSON.stringify({ from: this.#nodeId, ...message })
    if (text.length <= MESSAGE_CHARACTERS_MAX) this.#link.publish(channel, text)
  }

  #receive(text: string): void {
    const message = parse(text)
    if (!message || message.from === this.#nodeId) return
    switch (message.type) {
      case 'typing':
        return this.onSignal(message)
      case 'presence':
        return this.onPresence(message)
      case 'replaced':
        return this.onReplaced(message)
      // Of a newer node.
      default:
    }
  }
}

function parse(text: string): (Message & { from: string }) | undefined {
  if (text.length > MESSAGE_CHARACTERS_MAX) return undefined
  try {
    const message = JSON.parse(text) as (Message & { from: string }) | null
    return message !== null && typeof message === 'object' && typeof message.userId === 'string' ? message : undefined
  } catch {
    return undefined
  }
}
