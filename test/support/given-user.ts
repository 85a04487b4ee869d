import type { Decision } from '../../src/domain/decision.js'
import type { Fact, ReceiptEvent, UserEvent } from '../../src/domain/events.js'
import { type ReceiptsCommand, type ReceiptsState, decideReceipts, evolveReceipts, noReceipts } from '../../src/domain/receipts/receipts.js'
import { type UserCommand, type UserState, decideUser, evolveUser, unknownUser } from '../../src/domain/user/user.js'
import { expectations, metadataOf } from './given.js'

const factOfUser = (event: UserEvent, revision: number) =>
  ({ ...event, stream: 'user-anna', revision, metadata: metadataOf('anna', revision) }) as Fact<UserEvent>
const factOfReceipts = (event: ReceiptEvent, revision: number) =>
  ({ ...event, stream: 'receipts-c', revision, metadata: metadataOf(event.data.userId, revision) }) as Fact<ReceiptEvent>

export const userAfter = (...events: UserEvent[]): UserState => events.map(factOfUser).reduce(evolveUser, unknownUser)
export const receiptsAfter = (...events: ReceiptEvent[]): ReceiptsState => events.map(factOfReceipts).reduce(evolveReceipts, noReceipts)

/** What Anna wants of herself, after these facts. */
export function givenAnna(...events: UserEvent[]) {
  const state = userAfter(...events)
  return { state, when: (command: UserCommand) => expectations((): Decision<UserEvent> => decideUser(state, command, 'anna')) }
}

export function givenReceipts(...events: ReceiptEvent[]) {
  const state = receiptsAfter(...events)
  return { state, when: (command: ReceiptsCommand) => expectations((): Decision<ReceiptEvent> => decideReceipts(state, command, {})) }
}
