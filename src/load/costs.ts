/**
 * The one table of what things weigh, in units: an ordinary small request is one, some 50 µs of a core. What is charged before is
 * known by the shape of a request; what only the answer shows is charged after. The weights may change; clients go by `RateLimit`.
 */

/** Any request that is not named here. */
export const REQUEST_UNITS = 1
/** An event each, in the log and in every read model. */
const UNITS_PER_MEMBER = 1
const ROWS_PER_UNIT = 10
const IDS_PER_UNIT = 10
const CONTENT_BYTES_PER_UNIT = 1_024
const ANSWER_BYTES_PER_UNIT = 16_384
/** A conversation whose state is not in memory is read from its snapshot and the log. */
export const COLD_LOAD_UNITS = 5
const HELLO_UNITS = 5
const CONVERSATIONS_PER_UNIT = 10
/** More than this is no small thing: it waits in the lane of the heavy ones. A page of the usual size and a usual hello are light. */
export const LIGHT_UNITS_MAX = 6
/** A person who writes and reads uses less: such callers come first, and are not refused however busy the node is. */
export const ORDINARY_UNITS_PER_SECOND = 20

/** What comes in, beyond the first KiB, which every request may have. */
export const contentUnits = (bytes: number): number => (bytes <= CONTENT_BYTES_PER_UNIT ? 0 : Math.floor(bytes / CONTENT_BYTES_PER_UNIT))

/** Members that are added, or that a group begins with. */
export const memberUnits = (count: number): number => count * UNITS_PER_MEMBER

/** Rows of a page that is asked for. */
export const pageUnits = (limit: number): number => Math.ceil(limit / ROWS_PER_UNIT)

/** Users of whom somebody asks whether they are online. */
export const presenceUnits = (ids: number): number => Math.ceil(ids / IDS_PER_UNIT)

/** What an answer has beyond its first 16 KiB. */
export const answerUnits = (bytes: number): number => Math.floor(bytes / ANSWER_BYTES_PER_UNIT)

/** A hello, or anything else that goes through all conversations of a user. */
export const helloUnits = (conversations: number): number => HELLO_UNITS + conversationsUnits(conversations)
export const conversationsUnits = (conversations: number): number => Math.ceil(conversations / CONVERSATIONS_PER_UNIT)

/** What a request to REST asks for, as far as it says so itself. */
export interface Asked {
  body: unknown
  query: unknown
}

const PAGE_DEFAULT = 50
const limitIn = ({ query }: Asked) => (query as { limit?: number }).limit ?? PAGE_DEFAULT
const page = (asked: Asked) => pageUnits(limitIn(asked))
const idsIn = ({ body }: Asked, field: string) => ((body as Record<string, readonly unknown[]>)[field] ?? []).length

/** Beside the request itself and its bytes, by the operation's id. What is not named costs nothing more. */
export const operationUnits: Readonly<Record<string, (asked: Asked) => number>> = {
  createConversation: (asked) => memberUnits(idsIn(asked, 'memberIds')),
  addMembers: (asked) => memberUnits(idsIn(asked, 'userIds')),
  queryPresence: (asked) => presenceUnits(idsIn(asked, 'userIds')),
  listMembers: page,
  listMessages: page,
  listEvents: page,
  listReceipts: page,
  listInbox: page,
  listContacts: page,
  listBlocks: page,
  listDevices: page,
}

/** Operations that go through all conversations of their user. */
export const operationsOverAllConversations: ReadonlySet<string> = new Set(['listUnread'])

/** A frame of a client, as far as it says itself what it asks for. */
export interface AskedFrame {
  type: string
  limit?: number | undefined
  userIds?: readonly string[] | undefined
}

/** What a frame weighs; nothing where it is too small to wait for a turn. A hello is weighed by who says it. */
export function frameUnits(frame: AskedFrame, bytes: number): number {
  switch (frame.type) {
    case 'ping':
    case 'ack':
    case 'typing':
    case 'active':
      return 0
    case 'events.get':
      return REQUEST_UNITS + pageUnits(frame.limit ?? PAGE_DEFAULT)
    case 'presence.query':
    case 'presence.subscribe':
      return REQUEST_UNITS + presenceUnits(frame.userIds?.length ?? 0)
    default:
      return REQUEST_UNITS + contentUnits(bytes)
  }
}

/** A request to REST with all that the server makes for it, a frame, and how much larger content is once it is parsed. */
const REQUEST_BYTES = 16_384
const FRAME_BYTES = 2_048
const PARSED_FACTOR = 2

/** Estimate the memory of a waiting request or frame from the bytes of its body. */
export const waitingRequestBytes = (bytes: number): number => REQUEST_BYTES + bytes * PARSED_FACTOR
export const waitingFrameBytes = (bytes: number): number => FRAME_BYTES + bytes * PARSED_FACTOR
