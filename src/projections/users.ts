/** Read model `users`: profiles, contacts, blocks and devices. */
import { sql } from 'kysely'
import type { AnyEvent, JsonObject, Profile, RecordedFact } from '../domain/events.js'
import { rowsByQuestion } from '../gatherer.js'
import { bigints, texts } from './arrays.js'
import type { Database } from './database.js'
import { type Page, type PageOptions, PagedList, appliedOf, isoTime } from './pages.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export type UsersTables = {
  profiles: { user_id: string; name: string | null; avatar_url: string | null; custom: string }
  contacts: { user_id: string; other_user_id: string; position: string }
  blocks: { user_id: string; other_user_id: string; position: string }
  devices: { user_id: string; device_id: string; first_seen_at: number; position: string }
}

export const usersProjection: Projection = {
  name: 'users',
  version: 2,
  settings: '',
  tables: ['profiles', 'contacts', 'blocks', 'devices'],
  ddl: `
    CREATE TABLE profiles (user_id text COLLATE "C" PRIMARY KEY, name text, avatar_url text, custom text NOT NULL);
    CREATE TABLE contacts (
      user_id text COLLATE "C", other_user_id text COLLATE "C", position text COLLATE "C" NOT NULL, PRIMARY KEY (user_id, other_user_id)
    );
    CREATE TABLE blocks (
      user_id text COLLATE "C", other_user_id text COLLATE "C", position text COLLATE "C" NOT NULL, PRIMARY KEY (user_id, other_user_id)
    );
    CREATE TABLE devices (
      user_id text COLLATE "C", device_id text COLLATE "C", first_seen_at bigint NOT NULL, position text COLLATE "C" NOT NULL,
      PRIMARY KEY (user_id, device_id)
    );`,
  indexes: `
    CREATE INDEX contacts_by_other ON contacts (other_user_id, user_id);
    CREATE INDEX blocks_by_other ON blocks (other_user_id, user_id);`,
  begin: () => new UsersFold(),
}

type Relations = 'contacts' | 'blocks'

class UsersFold implements Fold {
  readonly #profiles = new Map<string, Profile>()
  /** The position of adding; null: taken away. */
  readonly #relations = { contacts: new PairMap<string | null>(), blocks: new PairMap<string | null>() }
  readonly #devices = new PairMap<{ at: number; position: string } | null>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'UserRegistered':
      case 'ProfileChanged':
        this.#profiles.set(id, event.data)
        return
      case 'ContactAdded':
        this.#relations.contacts.set(id, event.data.userId, event.position)
        return
      case 'ContactRemoved':
        this.#relations.contacts.set(id, event.data.userId, null)
        return
      case 'UserBlocked':
        this.#relations.blocks.set(id, event.data.userId, event.position)
        return
      case 'UserUnblocked':
        this.#relations.blocks.set(id, event.data.userId, null)
        return
      case 'DeviceSeen':
        if (event.data.replaced !== undefined) this.#devices.set(id, event.data.replaced, null)
        this.#devices.set(id, event.data.deviceId, { at: event.metadata.at, position: event.position })
        return
      case 'DeviceRevoked':
        this.#devices.set(id, event.data.deviceId, null)
        return
      default:
        return
    }
  }

  async flush(db: Database): Promise<void> {
    if (this.#profiles.size > 0) await writeProfiles(db, [...this.#profiles])
    await writeRelations(db, 'contacts', this.#relations.contacts)
    await writeRelations(db, 'blocks', this.#relations.blocks)
    await writeDevices(db, this.#devices)
  }
}

async function writeProfiles(db: Database, profiles: readonly [string, Profile][]): Promise<void> {
  await sql`
    INSERT INTO profiles
    SELECT * FROM unnest(
      ${texts(profiles, ([id]) => id)}::text[], ${texts(profiles, ([, p]) => p.name)}::text[],
      ${texts(profiles, ([, p]) => p.avatarUrl)}::text[], ${texts(profiles, ([, p]) => JSON.stringify(p.custom))}::text[])
    ON CONFLICT (user_id) DO UPDATE SET name = excluded.name, avatar_url = excluded.avatar_url, custom = excluded.custom`.execute(db)
}

async function writeRelations(db: Database, table: Relations, changes: PairMap<string | null>): Promise<void> {
  const entries = changes.entries()
  const removed = entries.filter(({ value }) => value === null)
  const added = entries.filter(({ value }) => value !== null)
  if (removed.length > 0) await deletePairs(db, table, 'other_user_id', removed)
  if (added.length > 0) {
    await sql`
      INSERT INTO ${sql.table(table)} (user_id, other_user_id, position)
      SELECT * FROM unnest(${texts(added, (e) => e.first)}::text[], ${texts(added, (e) => e.second)}::text[],
        ${texts(added, (e) => e.value)}::text[])
      ON CONFLICT (user_id, other_user_id) DO UPDATE SET position = excluded.position`.execute(db)
  }
}

async function writeDevices(db: Database, changes: PairMap<{ at: number; position: string } | null>): Promise<void> {
  const entries = changes.entries()
  const revoked = entries.filter(({ value }) => value === null)
  const seen = entries.filter(({ value }) => value !== null)
  if (revoked.length > 0) await deletePairs(db, 'devices', 'device_id', revoked)
  if (seen.length > 0) {
    await sql`
      INSERT INTO devices (user_id, device_id, first_seen_at, position)
      SELECT * FROM unnest(
        ${texts(seen, (e) => e.first)}::text[], ${texts(seen, (e) => e.second)}::text[],
        ${bigints(seen, (e) => e.value?.at)}::bigint[], ${texts(seen, (e) => e.value?.position)}::text[])
      ON CONFLICT (user_id, device_id) DO UPDATE SET first_seen_at = excluded.first_seen_at, position = excluded.position`.execute(db)
  }
}

async function deletePairs(
  db: Database,
  table: Relations | 'devices',
  column: string,
  pairs: readonly { first: string; second: string }[],
): Promise<void> {
  await sql`
    DELETE FROM ${sql.table(table)} t USING unnest(${texts(pairs, (e) => e.first)}::text[],
      ${texts(pairs, (e) => e.second)}::text[]) AS u(user_id, other_id)
    WHERE t.user_id = u.user_id AND t.${sql.ref(column)} = u.other_id`.execute(db)
}

export interface UserProfile {
  userId: string
  name: string | null
  avatarUrl: string | null
  custom: JsonObject
}

/** A user's profile, where one was set. */
export async function findProfile(db: Database, userId: string): Promise<UserProfile | undefined> {
  const row = await db.withTables<UsersTables>().selectFrom('profiles').selectAll().where('user_id', '=', userId).executeTakeFirst()
  return row && { userId, name: row.name, avatarUrl: row.avatar_url, custom: JSON.parse(row.custom) as JsonObject }
}

export interface UserItem {
  userId: string
}

const relationLists = { contacts: new PagedList('contacts', ['string']), blocks: new PagedList('blocks', ['string']) }
const deviceList = new PagedList('devices', ['string'])

/** A page of a user's contacts or blocks, by user id. */
export async function listRelations(db: Database, table: Relations, userId: string, options: PageOptions): Promise<Page<UserItem>> {
  const { cursor, limit } = options
  const list = relationLists[table]
  const [after] = list.after(userId, cursor) ?? ['']
  const rows = await db
    .withTables<UsersTables>()
    .selectFrom(table)
    .select(['other_user_id', appliedOf('users').as('applied')])
    .where('user_id', '=', userId)
    .where('other_user_id', '>', after)
    .orderBy('other_user_id')
    .limit(limit + 1)
    .execute()
  return list.page(
    userId,
    rows,
    options,
    (row) => ({ userId: row.other_user_id }),
    (row) => [row.other_user_id],
  )
}

export interface DeviceItem {
  deviceId: string
  firstSeenAt: string
}

/** A page of a user's devices, by device id. */
export async function listDevices(db: Database, userId: string, options: PageOptions): Promise<Page<DeviceItem>> {
  const { cursor, limit } = options
  const [after] = deviceList.after(userId, cursor) ?? ['']
  const rows = await db
    .withTables<UsersTables>()
    .selectFrom('devices')
    .select(['device_id', 'first_seen_at', appliedOf('users').as('applied')])
    .where('user_id', '=', userId)
    .where('device_id', '>', after)
    .orderBy('device_id')
    .limit(limit + 1)
    .execute()
  return deviceList.page(
    userId,
    rows,
    options,
    (row) => ({ deviceId: row.device_id, firstSeenAt: isoTime(row.first_seen_at) }),
    (row) => [row.device_id],
  )
}

/** So many who have one user as a contact are read in one statement. */
export const CONTACT_OWNERS_PAGE = 1_000

/** For each user those who have it as a contact: a page by id, of those beyond `after` ('': from the first). */
export async function findContactOwners(db: Database, asked: readonly { userId: string; after: string }[]): Promise<string[][]> {
  const { rows } = await sql<{ n: number; user_id: string }>`
    SELECT asked.n, c.user_id
    FROM unnest(${texts(asked, ({ userId }) => userId)}::text[], ${texts(asked, ({ after }) => after)}::text[])
      WITH ORDINALITY AS asked (user_id, after, n)
    CROSS JOIN LATERAL (
      SELECT user_id FROM contacts WHERE (other_user_id, user_id) > (asked.user_id, asked.after) AND other_user_id <= asked.user_id
      ORDER BY other_user_id, user_id LIMIT ${sql.lit(CONTACT_OWNERS_PAGE)}
    ) c ORDER BY asked.n, c.user_id`.execute(db)
  return rowsByQuestion(rows, asked.length).map((own) => own.map((row) => row.user_id))
}
