/** The read side as the rest of the program sees it: keeps the tables current, and answers from them. */
import type { EventStore, Position } from '../domain/event-store.js'
import { unavailable } from '../domain/errors.js'
import type { History } from '../domain/history.js'
import type { Logger } from '../domain/logger.js'
import { READ_WAIT_MS_MAX, withDeadline } from '../domain/waits.js'
import { BATCH_BYTES_MAX, Gatherer } from '../gatherer.js'
import { StartError } from '../start-error.js'
import { Applied } from './applied.js'
import { type Checkpoint, areOfThisLog, furthest, isCurrent, loadCheckpoints, migrate } from './checkpoints.js'
import { conversationsProjection, listMembers } from './conversations.js'
import { type Database, READ_SCHEMA, asRefusal, isLockTimeout, isLoss, isOfOtherShape, openReaders, openWriters } from './database.js'
import { type HistoryOptions, type Message, type MessagePage, findMessage, historyProjection, listMessages } from './history.js'
import { type InboxOptions, inboxProjection, listInbox } from './inbox.js'
import { type MembershipOfUser, allMembershipsOfUser, departuresAfter, findSharing, membershipsOfUsers } from './memberships.js'
import { type PageOptions, requireCursorOfThisLog } from './pages.js'
import type { Projection } from './projection.js'
import { Projector, type ProjectorStatus } from './projector.js'
import { Pulse } from './pulse.js'
import { type RebuildProgress, rebuild } from './rebuild.js'
import { type ReceiptsOptions, listReceipts, receiptsAfter, receiptsProjection } from './receipts.js'
import { numericProgress } from './replay-progress.js'
import {
  type SentMessage,
  type SentMessageKey,
  findHead,
  findMessageFacts,
  findOrdinal,
  findRecalled,
  findSentIds,
  findSentMessages,
} from './sent-messages.js'
import { PostgresSnapshotStore } from './snapshots.js'
import { type HasLeft, findUnreadCounts, unreadCountsProjection } from './unread-counts.js'
import { CONTACT_OWNERS_PAGE, findContactOwners, findProfile, listDevices, listRelations, usersProjection } from './users.js'

export type { MemberItem } from './conversations.js'
export type { Message, MessagePage, Reaction } from './history.js'
export type { InboxLine } from './inbox.js'
export type { Departure, Membership, MembershipOfUser } from './memberships.js'
export type { Page, PageOptions } from './pages.js'
export type { ProjectorStatus } from './projector.js'
export type { RebuildProgress } from './rebuild.js'
export type { MovedCursor, Receipt } from './receipts.js'
export type { UnreadCounts } from './unread-counts.js'
export type { DeviceItem, UserItem, UserProfile } from './users.js'

export interface ReadModelsOptions {
  connectionString: string
  store: EventStore
  logger: Logger
  fanoutOnWriteMax: number
  /** Whether this process keeps the tables current, or only reads them. */
  project: boolean
  connectionsMax?: number
}

const CONNECTIONS_MAX = 8
/** A statement of the start, which makes empty tables at most. */
const START_MS_MAX = 30_000

/** Every read model, in no order that matters: none looks at another while it is built. */
export const allProjections = (fanoutOnWriteMax: number): readonly Projection[] => [
  conversationsProjection,
  historyProjection,
  inboxProjection(fanoutOnWriteMax),
  unreadCountsProjection,
  receiptsProjection,
  usersProjection,
]

/** A read from current tables; an error that a client can see is a Refusal. */
type Read = <T>(query: (db: Database) => Promise<T>) => Promise<T>

/** The questions that REST and gateway ask of the read models, without what runs them. */
export type ReadQueries = Omit<ReadModels, 'close' | 'endWaits' | 'status' | 'replay' | 'snapshots'>

/** A row of one departure, about. */
const DEPARTURE_BYTES = 130
/** Users in many conversations take turns beside the others, who have most of the connections. */
const ALL_MEMBERSHIPS_AT_ONCE = 2
/** The cursors of as many members as a resume asks for at once. */
const RECEIPTS_BYTES = 300 << 10

export class ReadModels {
  readonly #options: ReadModelsOptions
  readonly #projections: readonly Projection[]
  readonly #db: Database
  readonly #applied: Applied
  readonly #projector: Projector | undefined
  readonly #pulse: Pulse
  /** The tables have the shape that this program knows, and are of its log. */
  #isCurrent = false
  readonly #read: Read = (query) => this.#answer(query)

  readonly history: HistoryReads
  readonly snapshots: PostgresSnapshotStore

  private constructor(options: ReadModelsOptions) {
    this.#options = options
    this.#projections = allProjections(options.fanoutOnWriteMax)
    this.#db = openReaders(options.connectionString, options.connectionsMax ?? CONNECTIONS_MAX, () => this.#doubt())
    this.#pulse = new Pulse(() => this.#noticeOtherShape(), options.logger)
    this.#applied = new Applied(() => this.#lookAtCheckpoint())
    this.#projector = options.project
      ? new Projector({
          ...options,
          projections: this.#projections,
          applied: this.#applied,
          onDoubt: () => {
            this.#isCurrent = false
          },
        })
      : undefined
    this.history = new HistoryQueries(
      this.#read,
      async () => this.waitFor(await options.store.head()),
      (position) => this.waitFor(position),
    )
    this.snapshots = new PostgresSnapshotStore(this.#db)
  }

  /**
   * Creates what is missing, and begins to project where `project` says so.
   * @throws {StartError} the tables are locked
   * @throws when there is no database
   */
  static async open(options: ReadModelsOptions): Promise<ReadModels> {
    const readModels = new ReadModels(options)
    try {
      await readModels.#migrate()
    } catch (error) {
      await readModels.close()
      throw error
    }
    readModels.#projector?.start()
    readModels.#pulse.start()
    return readModels
  }

  /** Who waits for the tables waits no longer. */
  endWaits(): void {
    this.#applied.endWaits()
  }

  async close(): Promise<void> {
    this.endWaits()
    this.#pulse.stop()
    await this.#projector?.stop()
    await this.#db.destroy()
  }

  async #migrate(): Promise<void> {
    const { connectionString, store, logger } = this.#options
    const db = openWriters(connectionString, READ_SCHEMA, { statementMsMax: START_MS_MAX })
    try {
      await migrate(db, this.#projections, store, logger)
    } catch (error) {
      if (!isLockTimeout(error)) throw error
      throw new StartError(
        `The schema ${READ_SCHEMA} of the read models' database is locked by another session: end that session, which pg_stat_activity shows, and start again.`,
      )
    } finally {
      await db.destroy()
    }
  }

  /** How far the tables are, as this process knows it. */
  get position(): Position {
    return this.#applied.position
  }

  /** For `/health/ready`; undefined where this process does not project. */
  status(): ProjectorStatus | undefined {
    return this.#projector?.status()
  }

  /** Resolves when the tables are at `position` or past it. @throws {Refusal} unavailable */
  waitFor(position: Position, timeoutMs = READ_WAIT_MS_MAX): Promise<void> {
    return this.#applied.reach(position, timeoutMs)
  }

  /**
   * Builds every read model anew, or one, beside those that are served, and swaps them.
   * @throws {Refusal} unavailable when another replay runs
   */
  replay({
    projection,
    onProgress,
    signal,
  }: {
    projection?: string
    onProgress?: (progress: RebuildProgress) => void
    signal?: AbortSignal
  } = {}): Promise<void> {
    const names = this.#projections.map(({ name }) => name)
    if (projection !== undefined && !names.includes(projection))
      throw new Error(`There is no projection "${projection}"; there are ${names.join(', ')}.`)
    const only = projection === undefined ? names : [projection]
    return rebuild({ ...this.#options, projections: this.#projections, only, onProgress, progressOf: numericProgress, signal })
  }

  async #answer<T>(query: (db: Database) => Promise<T>): Promise<T> {
    try {
      if (!this.#isCurrent) await this.#checkTables()
      return await query(this.#db)
    } catch (error) {
      if (isLoss(error)) this.#doubt()
      if (isOfOtherShape(error)) await this.#checkTables()
      throw asRefusal(error)
    }
  }

  /** A page of a list that gives cursors. @throws {Refusal} invalid_request where the cursor is not of this log */
  async #page<T>({ cursor }: PageOptions, query: (db: Database) => Promise<T>): Promise<T> {
    await requireCursorOfThisLog(cursor, this.#options.store)
    return this.#answer(query)
  }

  #doubt(): void {
    this.#isCurrent = false
    this.#pulse.look()
  }

  async #checkTables(): Promise<void> {
    const checkpoints = await loadCheckpoints(this.#db)
    this.#isCurrent = this.#areCurrent(checkpoints) && (await areOfThisLog(checkpoints.values(), this.#options.store))
    if (!this.#isCurrent) throw unavailable('The read models are being rebuilt: try again in a while.')
  }

  /** Another version of the program may rebuild the tables while this one answers from them. */
  async #noticeOtherShape(): Promise<void> {
    if (!this.#areCurrent(await loadCheckpoints(this.#db))) this.#isCurrent = false
  }

  #areCurrent(checkpoints: Map<string, Checkpoint>): boolean {
    return this.#projections.every((projection) => isCurrent(projection, checkpoints.get(projection.name)))
  }

  async #lookAtCheckpoint(): Promise<Position> {
    try {
      return furthest((await loadCheckpoints(this.#db)).values())
    } catch (error) {
      if (!isLoss(error)) this.#options.logger.error({ err: error }, 'read models: the checkpoint cannot be read')
      return this.#applied.position
    }
  }

  readonly members = {
    list: (conversationId: string, options: PageOptions) => this.#page(options, (db) => listMembers(db, conversationId, options)),
  }

  readonly inbox = {
    list: (userId: string, options: InboxOptions) => this.#page(options, (db) => listInbox(db, userId, options)),
  }

  readonly unreadCounts = {
    list: (userId: string, hasLeft?: HasLeft) => this.#read((db) => findUnreadCounts(db, userId, hasLeft)),
  }

  readonly #receiptsAfter = new Gatherer(
    (asked: readonly { conversationIds: readonly string[]; position: Position }[]) => this.#read((db) => receiptsAfter(db, asked)),
    2,
    () => RECEIPTS_BYTES,
  )
  readonly #contactOwners = new Gatherer((asked: readonly { userId: string; after: string }[]) =>
    this.#read((db) => findContactOwners(db, asked)),
  )
  readonly #membershipsOfUsers = new Gatherer((userIds: readonly string[]) => this.#read((db) => membershipsOfUsers(db, userIds)))
  /** One user a statement: those in more conversations than a page has. */
  readonly #allMemberships = new Gatherer(
    async (userIds: readonly string[]) => [await this.#read((db) => allMembershipsOfUser(db, userIds[0]!))],
    ALL_MEMBERSHIPS_AT_ONCE,
    () => BATCH_BYTES_MAX,
  )
  readonly #departuresAfter = new Gatherer(
    (asked: readonly { userId: string; position: Position; limit: number }[]) => this.#read((db) => departuresAfter(db, asked)),
    2,
    ({ limit }) => limit * DEPARTURE_BYTES,
  )

  async *#whoHave(userId: string): AsyncIterable<readonly string[]> {
    for (let after: string | undefined = ''; after !== undefined; ) {
      const owners: readonly string[] = await inTime(this.#contactOwners.find({ userId, after }))
      yield owners
      after = owners.length < CONTACT_OWNERS_PAGE ? undefined : owners.at(-1)
    }
  }

  readonly receipts = {
    list: (conversationId: string, options: ReceiptsOptions) => this.#page(options, (db) => listReceipts(db, conversationId, options)),
    after: (conversationIds: readonly string[], position: Position) => inTime(this.#receiptsAfter.find({ conversationIds, position })),
  }

  readonly users = {
    findProfile: (userId: string) => this.#read((db) => findProfile(db, userId)),
  }

  readonly contacts = {
    list: (userId: string, options: PageOptions) => this.#page(options, (db) => listRelations(db, 'contacts', userId, options)),
    /** Those who have a user as a contact, page by page. */
    whoHave: (userId: string) => this.#whoHave(userId),
  }

  readonly blocks = {
    list: (userId: string, options: PageOptions) => this.#page(options, (db) => listRelations(db, 'blocks', userId, options)),
  }

  readonly devices = {
    list: (userId: string, options: PageOptions) => this.#page(options, (db) => listDevices(db, userId, options)),
  }

  readonly memberships = {
    ofUser: async (userId: string): Promise<MembershipOfUser> => {
      const { more, ...page } = await inTime(this.#membershipsOfUsers.find(userId))
      return more ? inTime(this.#allMemberships.find(userId)) : page
    },
    departuresAfter: (userId: string, position: Position, limit: number) => inTime(this.#departuresAfter.find({ userId, position, limit })),
    sharing: (userId: string, userIds: readonly string[]) => this.#read((db) => findSharing(db, userId, userIds)),
  }
}

/** One that waits behind others that are not answered is not answered, either. */
const inTime = <Answer>(answer: Promise<Answer>): Promise<Answer> =>
  withDeadline(answer, READ_WAIT_MS_MAX, () => unavailable('The read models do not answer now: try again.'))

/** The history, for those who read it and for the write side. */
export interface HistoryReads extends History {
  /** Messages ascending by seq; without a bound the newest. */
  list(conversationId: string, options: HistoryOptions): Promise<MessagePage>
  /** One message, and how far the table is. */
  find(conversationId: string, seq: number): Promise<{ asOf: number; message: Message | undefined }>
}

class HistoryQueries implements HistoryReads {
  readonly #read: Read
  readonly #waitForHead: () => Promise<void>
  readonly #sentMessages = new Gatherer((keys: readonly SentMessageKey[]) => this.#read((db) => findSentMessages(db, keys)))

  readonly waitForPosition: History['waitForPosition']

  constructor(read: Read, waitForHead: () => Promise<void>, waitForPosition: History['waitForPosition']) {
    this.#read = read
    this.#waitForHead = waitForHead
    this.waitForPosition = waitForPosition
  }

  list(conversationId: string, options: HistoryOptions): Promise<MessagePage> {
    return this.#read((db) => listMessages(db, conversationId, options))
  }

  find(conversationId: string, seq: number): Promise<{ asOf: number; message: Message | undefined }> {
    return this.#read((db) => findMessage(db, conversationId, seq))
  }

  findSentMessage(conversationId: string, senderId: string, clientMessageId: string): Promise<SentMessage> {
    return inTime(this.#sentMessages.find({ conversationId, senderId, clientMessageId }))
  }

  findSentIds(...[conversationId, senderId, after, limit]: Parameters<History['findSentIds']>): ReturnType<History['findSentIds']> {
    return this.#read((db) => findSentIds(db, conversationId, senderId, after, limit))
  }

  findMessageFacts(...[conversationId, seq, reaction]: Parameters<History['findMessageFacts']>): ReturnType<History['findMessageFacts']> {
    return this.#read((db) => findMessageFacts(db, conversationId, seq, reaction))
  }

  findRecalled(conversationId: string, seqs: readonly number[]): ReturnType<History['findRecalled']> {
    return this.#read((db) => findRecalled(db, conversationId, seqs))
  }

  findOrdinal(conversationId: string, seq: number): ReturnType<History['findOrdinal']> {
    return this.#read((db) => findOrdinal(db, conversationId, seq))
  }

  async waitForRevision(conversationId: string, revision: number): Promise<void> {
    const head = await this.#read((db) => findHead(db, conversationId))
    // The revision is in the log already: once everything that is there now is applied, it is too.
    if (head < revision) await this.#waitForHead()
  }
}
