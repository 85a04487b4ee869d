import type { MessageFacts } from './conversation/commands.js'
import type { Position } from './event-store.js'

/**
 * What the write side asks of the message history where its own window does not reach.
 * Every answer says how far the history is: `asOf` is the last revision of the conversation that it has seen.
 */
export interface History {
  /** The seq of the message with this client id, if there is one. Calls of one turn are asked together. */
  findSentMessage(conversationId: string, senderId: string, clientMessageId: string): Promise<{ asOf: number; seq: number | undefined }>

  /** What a sender has sent after a revision (-1: all), at most `limit` of it. */
  findSentIds(
    conversationId: string,
    senderId: string,
    after: number,
    limit: number,
  ): Promise<{ asOf: number; sent: { clientMessageId: string; seq: number }[] }>

  /** The message at `seq`; `reacted` tells of this user and emoji. */
  findMessageFacts(
    conversationId: string,
    seq: number,
    reaction?: { userId: string; emoji: string },
  ): Promise<{ asOf: number; message: MessageFacts | undefined }>

  /** Which of these messages are recalled. */
  findRecalled(conversationId: string, seqs: readonly number[]): Promise<{ asOf: number; recalled: ReadonlySet<number> }>

  /** Finds the ordinal of the last message at or below `seq` (0: there is none). It is right only if `asOf` has reached `seq`. */
  findOrdinal(conversationId: string, seq: number): Promise<{ asOf: number; ordinal: number }>

  /** Waits until the tables are at this position of the log. @throws {Refusal} unavailable when it takes too long */
  waitForPosition(position: Position): Promise<void>

  /** Waits until the history has seen this revision. @throws {Refusal} unavailable when it takes too long */
  waitForRevision(conversationId: string, revision: number): Promise<void>
}
