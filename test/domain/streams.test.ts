import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Refusal } from '../../src/domain/errors.js'
import { type Append, NO_STREAM, type RecordedEvent, StoreUnavailable } from '../../src/domain/event-store.js'
import type { Snapshot } from '../../src/domain/snapshot-store.js'
import { type Folded } from '../../src/domain/write-path/streams.js'
import { findBrokenLink } from '../support/hash-chain.js'
import {
  InMemoryEventStore,
  after,
  slow,
  unavailableNow,
  unknownButDone,
  unknownNotDone,
  withResolvers,
} from '../support/in-memory-event-store.js'
import {
  InMemorySnapshots,
  LogBook,
  type NotesCommand,
  type NotesOutcome,
  type NotesState,
  clientIdOf,
  notes,
  notesStreams,
  requester,
  say,
} from '../support/notes.js'

const STREAM = 'conversation-c'

function setUp(options: Partial<Parameters<typeof notesStreams>[0]> = {}) {
  const store = new InMemoryEventStore()
  const snapshots = new InMemorySnapshots()
  const logger = new LogBook()
  const streams = notesStreams({ store, snapshots, logger, ...options })
  const execute = (command: NotesCommand, id = 'c') => streams.execute(id, command, requester)
  /** Another node on the same log. */
  const other = notesStreams({ store: new InMemoryEventStore(store.log) })
  const elsewhere = (command: NotesCommand, id = 'c') => other.execute(id, command, requester)
  const logged = (stream = STREAM): RecordedEvent[] => store.log.streams.get(stream) ?? []
  const said = () => logged().flatMap((event) => clientIdOf(event) ?? event.type)
  const sayMany = async (count: number, id = 'c') =>
    execute({ type: 'sayAll', ids: Array.from({ length: count }, (_, i) => `many${i}`) }, id)
  return { store, snapshots, logger, streams, execute, other, elsewhere, logged, said, sayMany }
}

const seqOf = (outcome: NotesOutcome) =>
  outcome.kind === 'appended' ? outcome.events.at(-1)!.revision : outcome.kind === 'resent' ? outcome.seq : undefined
const idsOf = ({ events }: Append) => events.map((event) => (event.data as { clientMessageId?: string }).clientMessageId ?? event.type)
const refused = async (answer: Promise<unknown>): Promise<Refusal> => {
  const error = await answer.then(
    () => new Error('it was not refused'),
    (reason: unknown) => reason,
  )
  if (error instanceof Refusal) return error
  throw error
}
const numbered = (count: number, prefix = 'n') => Array.from({ length: count }, (_, i) => `${prefix}${i}`)

describe('a command', () => {
  test('is appended at the exact revision, and answered with what was recorded', async () => {
    const { store, execute } = setUp()
    const [first, second] = [await execute(say('a')), await execute(say('b'))]
    expect(store.appends.map(({ stream, expectedRevision }) => [stream, expectedRevision])).toEqual([
      [STREAM, NO_STREAM],
      [STREAM, 0],
    ])
    expect([first, second]).toMatchObject([
      { kind: 'appended', events: [{ revision: 0 }] },
      { kind: 'appended', events: [{ revision: 1 }] },
    ])
    expect(second.folded).toMatchObject({ revision: 1, position: await store.head(), state: { said: 2 } })
    expect(second.folded.state.seqs.toObject()).toEqual({ a: 0, b: 1 })
  })

  test('that changes nothing appends nothing', async () => {
    const { store, execute } = setUp()
    await execute(say('a'))
    expect(await execute({ type: 'ignore' })).toMatchObject({ kind: 'unchanged', folded: { revision: 0 } })
    expect(store.appends).toHaveLength(1)
  })

  test('that was done before gives the first seq', async () => {
    const { store, execute } = setUp()
    await execute(say('a'))
    await execute(say('b'))
    expect(await execute(say('a'))).toMatchObject({ kind: 'resent', seq: 0 })
    expect(store.appends).toHaveLength(2)
  })

  test('that is refused appends nothing', async () => {
    const { store, execute } = setUp()
    await execute({ type: 'close' })
    expect(await refused(execute(say('a')))).toMatchObject({ code: 'conversation_frozen', temporary: false })
    expect(store.appends).toHaveLength(1)
  })

  test('of several facts appends them together; each names the first as its cause', async () => {
    const { execute, logged } = setUp()
    const outcome = await execute({ type: 'sayAll', ids: ['a', 'b', 'c'] })
    expect(outcome).toMatchObject({ kind: 'appended', events: [{ revision: 0 }, { revision: 1 }, { revision: 2 }] })
    const [first] = logged()
    expect(logged().map(({ metadata }) => metadata.causationId)).toEqual([null, first!.id, first!.id])
  })

  test('leaves metadata of who, when, by which request, and the chain goes on', async () => {
    const { streams, execute, logged } = setUp({ now: () => 1_234 })
    await streams.execute('c', say('a'), { actor: { userId: 'anna', app: 'shop' }, correlationId: 'request-7' })
    await Promise.all(numbered(20).map((id) => execute(say(id))))
    expect(logged()[0]!.metadata).toMatchObject({
      actor: { userId: 'anna', app: 'shop' },
      at: 1_234,
      correlationId: 'request-7',
      causationId: null,
      schemaVersion: 1,
    })
    expect(findBrokenLink(logged())).toBeUndefined()
    expect(new Set(logged().map(({ id }) => id)).size).toBe(21)
  })
})

describe('while an append is in flight', () => {
  test('what arrives waits, and is appended together, in order', async () => {
    const { store, execute, said } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const answers = [execute(say('a'))]
    await reached
    answers.push(...['b', 'c', 'd'].map((id) => execute(say(id))))
    expect(store.appends).toHaveLength(1)
    letGo()
    expect((await Promise.all(answers)).map(seqOf)).toEqual([0, 1, 2, 3])
    expect(store.appends.map(idsOf)).toEqual([['a'], ['b', 'c', 'd']])
    expect(said()).toEqual(['a', 'b', 'c', 'd'])
  })

  test('nothing is answered', async () => {
    const { store, execute } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    let isAnswered = false
    const answer = execute(say('a')).then(() => {
      isAnswered = true
    })
    await reached
    await nextTurn()
    expect(isAnswered).toBe(false)
    letGo()
    await answer
  })

  test('each of a batch is decided on what those before it did', async () => {
    const { store, execute } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const first = execute(say('a'))
    await reached
    const batch = [
      execute(say('b')),
      execute(say('b')),
      execute({ type: 'close' }),
      execute(say('c')),
      execute({ type: 'open' }),
      execute(say('d')),
      execute({ type: 'ignore' }),
    ]
    letGo()
    const results = await Promise.allSettled([first, ...batch])
    expect(
      results.map((result) => (result.status === 'fulfilled' ? [result.value.kind, seqOf(result.value)] : (result.reason as Refusal).code)),
    ).toEqual([
      ['appended', 0],
      ['appended', 1],
      ['resent', 1],
      ['appended', 2],
      'conversation_frozen',
      ['appended', 3],
      ['appended', 4],
      ['unchanged', undefined],
    ])
    expect(store.appends.map(idsOf)).toEqual([['a'], ['b', 'ConversationFrozen', 'ConversationUnfrozen', 'd']])
  })

  test('other streams go on', async () => {
    const { store, execute } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const stuck = execute(say('a'))
    await reached
    expect(await execute(say('a'), 'other')).toMatchObject({ kind: 'appended' })
    letGo()
    await stuck
  })

  test('a batch has at most 128 commands', async () => {
    const { store, execute, said } = setUp()
    const ids = numbered(300)
    await Promise.all(ids.map((id) => execute(say(id))))
    expect(Math.max(...store.appends.map(({ events }) => events.length))).toBe(128)
    expect(said()).toEqual(ids)
  })

  test('are never together more than a store takes at once, with names of the greatest length and a thousand events of one command', async () => {
    const { store, streams } = setUp()
    const long = (letter: string) => letter.repeat(64)
    const asking = { actor: { userId: long('u'), app: long('a') }, correlationId: 'r'.repeat(128) }
    const sends = Array.from({ length: 17 }, (_, n) => ({ type: 'say', id: `m${n}`, words: 'x'.repeat(29_500) }) as const)
    const all = { type: 'sayAll', ids: Array.from({ length: 1_000 }, (_, n) => `${long('i')}${n}`) } as const
    await Promise.all([...sends, all].map((command) => streams.execute('c', command, asking)))
    const bytesOf = ({ events }: Append) =>
      events.reduce((sum, { dataJson, metadata }) => sum + Buffer.byteLength(dataJson) + JSON.stringify(metadata).length, 0)
    expect(Math.max(...store.appends.map(bytesOf))).toBeLessThanOrEqual(1 << 20)
    expect(store.appends.length).toBeGreaterThan(1)
  })

  test('a batch has hardly more than half a MiB, for no store takes everything at once', async () => {
    const { store, execute, said } = setUp()
    const ids = numbered(100)
    await Promise.all(ids.map((id) => execute({ type: 'say', id, words: 'ü'.repeat(15_000) })))
    const bytes = store.appends.map(({ events }) => events.reduce((sum, event) => sum + Buffer.byteLength(event.dataJson), 0))
    expect(Math.max(...bytes)).toBeLessThan(600 * 1024)
    expect(store.appends.length).toBeLessThan(10)
    expect(said()).toEqual(ids)
  })

  test('ten thousand wait, and one more is sent away', async () => {
    const { store, execute, logged } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const first = execute(say('a'))
    await reached
    const waiting = numbered(10_000).map(() => execute({ type: 'ignore' }))
    expect(await refused(execute(say('b')))).toMatchObject({ code: 'unavailable', temporary: true })
    letGo()
    expect((await Promise.all([first, ...waiting])).length).toBe(10_001)
    expect(await execute(say('c'))).toMatchObject({ kind: 'appended' })
    expect(logged()).toHaveLength(2)
  })
})

describe('where another node writes first', () => {
  test.each([1, 2, 5])('%i times, the command is decided on what is true then', async (times) => {
    const { store, execute, elsewhere, said } = setUp()
    await execute(say('a'))
    const others = numbered(times, 'other')
    store.faults.push(...others.map((id) => after(() => elsewhere(say(id)))))
    expect(await execute(say('b'))).toMatchObject({
      kind: 'appended',
      events: [{ revision: times + 1 }],
      folded: { state: { said: times + 2 } },
    })
    expect(said()).toEqual(['a', ...others, 'b'])
  })

  test('what was accepted before is refused then', async () => {
    const { store, execute, elsewhere, said } = setUp()
    store.faults.push(after(() => elsewhere({ type: 'close' })))
    expect((await refused(execute(say('a')))).code).toBe('conversation_frozen')
    expect(said()).toEqual(['ConversationFrozen'])
  })

  test('what was refused before is accepted then', async () => {
    const { store, streams, execute, elsewhere, said } = setUp()
    await execute({ type: 'close' })
    await streams.load('c')
    await elsewhere({ type: 'open' })
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const shout = execute({ type: 'shout', id: 'a' })
    await reached
    const batch = [execute({ type: 'shout', id: 'b' }), execute(say('c'))]
    letGo()
    expect((await Promise.all([shout, ...batch])).map(seqOf)).toEqual([2, 3, 4])
    expect(said()).toEqual(['ConversationFrozen', 'ConversationUnfrozen', 'a', 'b', 'c'])
  })

  test('a refusal waits for the fate of its batch', async () => {
    const { store, execute, elsewhere, said } = setUp()
    await execute({ type: 'close' })
    store.faults.push(after(() => elsewhere(say('never'))))
    const { fault, reached, letGo } = slow()
    store.faults.splice(
      0,
      1,
      fault,
      after(() => elsewhere({ type: 'open' })),
    )
    const first = execute({ type: 'shout', id: 'a' })
    await reached
    // On what this node knows, `say` is refused; but by the time of its batch's append it is open elsewhere.
    const batch = [execute({ type: 'shout', id: 'b' }), execute(say('c'))]
    letGo()
    expect((await Promise.all([first, ...batch])).map(seqOf)).toEqual([1, 3, 4])
    expect(said()).toEqual(['ConversationFrozen', 'a', 'ConversationUnfrozen', 'b', 'c'])
  })

  test('the same message through both is one', async () => {
    const { store, execute, elsewhere, said } = setUp()
    store.faults.push(after(() => elsewhere(say('a'))))
    expect(await execute(say('a'))).toMatchObject({ kind: 'resent', seq: 0 })
    expect(said()).toEqual(['a'])
  })

  test('again and again, it is told to come back, and nothing of it was written', async () => {
    const { store, execute, elsewhere, said } = setUp()
    store.faults.push(...numbered(51).map((id) => after(() => elsewhere(say(id)))))
    expect(await refused(execute(say('a')))).toMatchObject({ code: 'unavailable', temporary: true })
    expect(said()).toEqual(numbered(51))
    expect(await execute(say('a'))).toMatchObject({ kind: 'appended', events: [{ revision: 51 }] })
  })

  test('the chain has no fork', async () => {
    const { store, execute, elsewhere, logged } = setUp()
    store.faults.push(
      after(() => elsewhere({ type: 'sayAll', ids: ['x', 'y'] })),
      after(() => elsewhere(say('z'))),
    )
    await Promise.all([execute(say('a')), execute({ type: 'sayAll', ids: ['b', 'c'] })])
    expect(findBrokenLink(logged())).toBeUndefined()
  })
})

describe('where the store fails', () => {
  test('before anything happened, it is told to come back, and what is in memory stays', async () => {
    const { store, streams, execute, said } = setUp()
    await execute(say('a'))
    store.faults.push(unavailableNow)
    expect(await refused(execute(say('b')))).toMatchObject({ code: 'unavailable', temporary: true })
    expect(streams.peek('c')?.revision).toBe(0)
    expect(await execute(say('b'))).toMatchObject({ kind: 'appended' })
    expect(said()).toEqual(['a', 'b'])
  })

  test.each([
    ['and it happened', unknownButDone, 'resent'],
    ['and it did not happen', unknownNotDone, 'appended'],
  ] as const)('with unknown outcome %s: the same sent again is there once', async (_, fault, kind) => {
    const { store, execute, said } = setUp()
    await execute(say('a'))
    store.faults.push(fault)
    expect(await refused(execute(say('b')))).toMatchObject({ code: 'unavailable', temporary: true })
    const again = await execute(say('b'))
    expect([again.kind, seqOf(again)]).toEqual([kind, 1])
    expect(said()).toEqual(['a', 'b'])
  })

  test('with unknown outcome, all of the batch are told so, and none that it failed', async () => {
    const { store, execute, said } = setUp()
    await execute({ type: 'close' })
    const { fault, reached, letGo } = slow()
    store.faults.push(fault, unknownButDone)
    const first = execute({ type: 'shout', id: 'a' })
    await reached
    const batch = [execute({ type: 'shout', id: 'b' }), execute(say('c')), execute({ type: 'ignore' })]
    letGo()
    await first
    expect((await Promise.all(batch.map(refused))).map(({ code }) => code)).toEqual(['unavailable', 'unavailable', 'unavailable'])
    expect(await execute({ type: 'shout', id: 'b' })).toMatchObject({ kind: 'resent', seq: 2 })
    expect(said()).toEqual(['ConversationFrozen', 'a', 'b'])
  })

  test('with unknown outcome, what waits behind it is decided on what the log holds', async () => {
    const { store, execute, said } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(async (append, happen) => {
      await fault(append, happen)
      return unknownButDone(append, happen)
    })
    const first = execute(say('a'))
    await reached
    const second = execute(say('b'))
    letGo()
    await refused(first)
    expect(seqOf(await second)).toBe(1)
    expect(said()).toEqual(['a', 'b'])
  })

  test('with unknown outcome, nothing is refused on what was true before it', async () => {
    const { store, execute } = setUp()
    await execute({ type: 'close' })
    store.faults.push(unknownButDone)
    await refused(execute({ type: 'open' }))
    expect(await execute(say('a'))).toMatchObject({ kind: 'appended', events: [{ revision: 2 }] })
  })

  test('with an append that arrives late after all, it is there once', async () => {
    const { store, execute, said } = setUp()
    let late = () => {}
    store.faults.push((append, happen) => {
      late = () => void happen()
      return unknownNotDone(append, happen)
    })
    await refused(execute(say('a')))
    store.faults.push(after(() => late()))
    expect(await execute(say('a'))).toMatchObject({ kind: 'resent', seq: 0 })
    expect(said()).toEqual(['a'])
  })

  test('while the winner of a conflict is read, it is told to come back', async () => {
    const { store, execute, elsewhere, said } = setUp()
    await execute(say('a'))
    store.faults.push(after(() => elsewhere(say('b'))))
    store.beforeRead = () => {
      throw new StoreUnavailable('away')
    }
    expect(await refused(execute(say('c')))).toMatchObject({ code: 'unavailable', temporary: true })
    store.beforeRead = () => undefined
    expect(seqOf(await execute(say('c')))).toBe(2)
    expect(said()).toEqual(['a', 'b', 'c'])
  })

  test('while a state is loaded, reader and writer are told to come back, and it is not remembered', async () => {
    const { store, streams, execute } = setUp()
    store.beforeRead = () => {
      throw new StoreUnavailable('away')
    }
    expect((await refused(Promise.resolve(streams.load('c')))).code).toBe('unavailable')
    expect((await refused(execute(say('a')))).code).toBe('unavailable')
    store.beforeRead = () => undefined
    expect(seqOf(await execute(say('a')))).toBe(0)
  })
})

describe('a bug', () => {
  const withBug = async (bug: NotesCommand, options = {}) => {
    const it = setUp(options)
    const { fault, reached, letGo } = slow()
    it.store.faults.push(fault)
    const first = it.execute(say('a'))
    await reached
    const batch = [it.execute(say('b')), it.execute(bug), it.execute(say('c'))]
    letGo()
    const results = await Promise.allSettled([first, ...batch])
    return {
      ...it,
      results: results.map((result) => (result.status === 'fulfilled' ? seqOf(result.value) : (result.reason as Refusal).code)),
    }
  }

  test('in a decision is `internal` for its command, and disturbs no other', async () => {
    const { results, said, logger } = await withBug({ type: 'break' })
    expect(results).toEqual([0, 1, 'internal', 2])
    expect(said()).toEqual(['a', 'b', 'c'])
    expect(logger.lines).toEqual(['error: a decision failed'])
  })

  test('in folding what was decided leaves nothing of its command, and disturbs no other', async () => {
    const { results, said, logged } = await withBug({ type: 'sayAll', ids: ['x', 'unfoldable', 'y'] })
    expect(results).toEqual([0, 1, 'internal', 2])
    expect(said()).toEqual(['a', 'b', 'c'])
    expect(findBrokenLink(logged())).toBeUndefined()
  })

  test.each([
    ['that is a refusal', new Refusal('not_found', 'gone'), 'not_found', []],
    ['of the store', new StoreUnavailable('away'), 'unavailable', []],
    ['of any kind', new TypeError('a bug'), 'unavailable', ['warn: a look-up failed']],
  ])('or failure in a look-up %s is told to its command alone', async (_, failure, code, lines) => {
    const prepare = (_id: string, command: NotesCommand) => (command.type === 'shout' ? Promise.reject(failure) : Promise.resolve({}))
    const { results, said, logger } = await withBug({ type: 'shout', id: 'x' }, { prepare })
    expect(results).toEqual([0, 1, code, 2])
    expect(said()).toEqual(['a', 'b', 'c'])
    expect(logger.lines).toEqual(lines)
  })
})

describe('what is looked up', () => {
  test('is looked up again when the state has moved past it', async () => {
    const seen: number[] = []
    const prepare = async (_: string, __: NotesCommand, { state }: Folded<NotesState>) => {
      seen.push(state.said)
      return { holdsUntil: state.said + 2 }
    }
    const { execute, said, store } = setUp({ prepare })
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const first = execute(say('a'))
    await reached
    const rest = numbered(5).map((id) => execute(say(id)))
    letGo()
    expect((await Promise.all([first, ...rest])).map(seqOf)).toEqual([0, 1, 2, 3, 4, 5])
    expect(said()).toEqual(['a', ...numbered(5)])
    expect(seen).toEqual([0, 1, 1, 1, 1, 1, 3, 3, 3, 5])
  })

  test('for one that has to wait holds up those behind it: the order of arrival is kept', async () => {
    let isFirst = true
    const prepare = async (_: string, command: NotesCommand) => {
      if (command.type !== 'say' || command.id !== 'b' || !isFirst) return {}
      isFirst = false
      return { holdsUntil: 2 }
    }
    const { execute, said, store } = setUp({ prepare })
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const first = execute(say('first'))
    await reached
    const rest = ['a', 'b', 'c', 'd'].map((id) => execute(say(id)))
    letGo()
    await Promise.all([first, ...rest])
    expect(said()).toEqual(['first', 'a', 'b', 'c', 'd'])
  })
})

describe('a cold stream', () => {
  test('is folded from its beginning once, however many ask', async () => {
    const { store, other, sayMany } = setUp()
    await sayMany(20)
    const reads = store.reads
    const cold = notesStreams({ store })
    const all = await Promise.all(numbered(10).map(async () => cold.load('c')))
    expect(new Set(all).size).toBe(1)
    expect(all[0]).toMatchObject({ revision: 19, position: await store.head(), state: { said: 20 } })
    expect(store.reads).toBe(reads + 1)
    expect(other.peek('c')).toBeUndefined()
  })

  test('of several thousand events is read in pages', async () => {
    const { store, execute } = setUp()
    for (let i = 0; i < 3; i++) await execute({ type: 'sayAll', ids: numbered(1_000, `p${i}-`) })
    expect(await notesStreams({ store }).load('c')).toMatchObject({ revision: 2_999, state: { said: 3_000 } })
  })

  test('is folded from its snapshot and the tail, to the same state', async () => {
    const { store, streams, execute, sayMany, snapshots } = setUp()
    await sayMany(600)
    await execute({ type: 'close' })
    expect(JSON.parse(snapshots.saved.get(STREAM)!)).toMatchObject({ revision: 599 })
    const asked: unknown[] = []
    const readStream = store.readStream.bind(store)
    store.readStream = (stream, options) => {
      asked.push(options.from)
      return readStream(stream, options)
    }
    const warm = streams.peek('c')!
    const cold = await notesStreams({ store, snapshots }).load('c')
    expect({ ...cold, state: { ...cold.state, seqs: 0 } }).toEqual({ ...warm, state: { ...warm.state, seqs: 0 } })
    expect(cold.state.seqs.equals(warm.state.seqs)).toBe(true)
    // The event that the snapshot ends with, and what is new.
    expect(asked).toEqual([599])
  })

  test('that was evicted comes back the same, and goes on', async () => {
    const snapshots = new InMemorySnapshots()
    const { execute, streams, logged } = setUp({ cacheWeightMax: 1, snapshots })
    const ids = ['c', 'd', 'e']
    for (let round = 0; round < 180; round++)
      for (const id of ids) await execute({ type: 'sayAll', ids: [`x${round}`, `y${round}`, `z${round}`] }, id)
    expect(ids.filter((id) => streams.peek(id) !== undefined)).toEqual(['e'])
    expect(snapshots.saved.size).toBe(3)
    expect(await execute(say('x7'))).toMatchObject({ kind: 'resent', seq: 21, folded: { state: { said: 540 }, revision: 539 } })
    for (const id of ids) expect(findBrokenLink(logged(`conversation-${id}`))).toBeUndefined()
  })

  test('too heavy for the cache works, only slower', async () => {
    const { execute, streams, said } = setUp({ decider: { ...notes, weightOf: () => 1_000 }, cacheWeightMax: 10 })
    for (const id of ['a', 'b', 'a']) await execute(say(id))
    expect(streams.peek('c')).toBeUndefined()
    expect(said()).toEqual(['a', 'b'])
  })
})

describe('snapshots', () => {
  test('of a state too heavy for the cache are written as rarely as others', async () => {
    const snapshots = new InMemorySnapshots()
    let saves = 0
    const save = snapshots.save.bind(snapshots)
    snapshots.save = (...asked) => {
      saves += 1
      return save(...asked)
    }
    const { execute, streams } = setUp({ decider: { ...notes, weightOf: () => 1_000 }, cacheWeightMax: 10, snapshots })
    await execute({ type: 'sayAll', ids: Array.from({ length: 600 }, (_, n) => `n${n}`) })
    for (let n = 0; n < 20; n += 1) await execute(say(`x${n}`))
    expect(streams.peek('c')).toBeUndefined()
    expect(saves).toBe(1)
  })

  test('of another log are dropped, and the state is folded from the beginning', async () => {
    const { store, snapshots, sayMany } = setUp()
    await sayMany(600)
    const saved = JSON.parse(snapshots.saved.get(STREAM)!) as Snapshot
    const ofOtherLogs: [string, Snapshot][] = [
      ['another event at the same place', { ...saved, hash: 'x'.repeat(43) }],
      ['the same event at an earlier place', { ...saved, revision: saved.revision - 1 }],
      ['beyond the end of the stream', { ...saved, revision: 700 }],
    ]
    for (const [name, snapshot] of ofOtherLogs) {
      snapshots.saved.set(STREAM, JSON.stringify({ ...snapshot, state: { said: 9_999 } }))
      const logger = new LogBook()
      const loaded = await notesStreams({ store, snapshots, logger }).load('c')
      expect([name, loaded.revision, loaded.state.said]).toEqual([name, 599, 600])
      expect(logger.lines).toEqual(['warn: a snapshot is not of this log: it is dropped, and the stream is folded from its beginning'])
      // It does not stand in the way of those of this log: what loads it saves one anew.
      expect(JSON.parse(snapshots.saved.get(STREAM)!)).toMatchObject({ revision: 599, hash: saved.hash })
    }
  })

  test('that can not be saved are harmless', async () => {
    const { snapshots, execute, sayMany, logger, said } = setUp()
    await execute(say('first'))
    snapshots.failure = new Error('disk full')
    await sayMany(600)
    expect(await execute(say('a'))).toMatchObject({ kind: 'appended', events: [{ revision: 601 }] })
    expect(logger.lines).toEqual(['warn: a snapshot was not saved'])
    expect(said()).toHaveLength(602)
  })

  test('that can not be loaded are harmless', async () => {
    const { snapshots, store, sayMany, logger } = setUp()
    await sayMany(600)
    snapshots.failure = new Error('gone')
    expect(await notesStreams({ store, snapshots, logger }).load('c')).toMatchObject({ revision: 599, state: { said: 600 } })
    expect(logger.lines).toContain('warn: a snapshot was not loaded')
  })

  test('that can not be understood are harmless', async () => {
    const { store, snapshots, sayMany, logger } = setUp()
    await sayMany(600)
    const fromJson = () => {
      throw new TypeError('what is this?')
    }
    expect(await notesStreams({ store, snapshots, logger, decider: { ...notes, fromJson } }).load('c')).toMatchObject({
      revision: 599,
      state: { said: 600 },
    })
    expect(logger.lines).toEqual(['warn: a snapshot was not loaded'])
  })

  test('of another version are ignored', async () => {
    const { store, snapshots, sayMany } = setUp()
    await sayMany(600)
    const stale = { ...(JSON.parse(snapshots.saved.get(STREAM)!) as object), state: 'of another shape' }
    snapshots.saved.set(STREAM, JSON.stringify(stale))
    expect(await notesStreams({ store, snapshots, decider: { ...notes, snapshotVersion: 2 } }).load('c')).toMatchObject({
      revision: 599,
      state: { said: 600 },
    })
  })

  test('are made now and then, not always', async () => {
    const { snapshots, execute } = setUp()
    for (const id of numbered(1_200)) await execute(say(id))
    expect(snapshots.saves).toBe(2)
  })
})

describe('what the feed brings', () => {
  async function twoEvents() {
    const it = setUp()
    await it.execute(say('a'))
    await it.elsewhere(say('b'))
    await it.elsewhere(say('c'))
    const [first, second, third] = it.logged()
    return { ...it, first: first!, second: second!, third: third! }
  }

  test('next keeps the state in memory current', async () => {
    const { streams, store, second, third } = await twoEvents()
    const reads = store.reads
    streams.follow('c', second)
    expect(streams.peek('c')).toMatchObject({ revision: 1, position: second.position, hash: second.metadata.hash, state: { said: 2 } })
    streams.follow('c', third)
    expect(streams.peek('c')).toMatchObject({ revision: 2, state: { said: 3 } })
    expect(store.reads).toBe(reads)
  })

  test('from the past changes nothing', async () => {
    const { streams, first, second } = await twoEvents()
    streams.follow('c', second)
    const state = streams.peek('c')
    for (const event of [first, second]) streams.follow('c', event)
    expect(streams.peek('c')).toBe(state)
  })

  test('after a hole makes the state be forgotten, and folded anew', async () => {
    const { streams, third } = await twoEvents()
    streams.follow('c', third)
    expect(streams.peek('c')).toBeUndefined()
    expect(await streams.load('c')).toMatchObject({ revision: 2, state: { said: 3 } })
  })

  test('of a stream that is not in memory is let go', async () => {
    const { store, third } = await twoEvents()
    const cold = notesStreams({ store })
    const reads = store.reads
    cold.follow('c', third)
    expect(cold.peek('c')).toBeUndefined()
    expect(store.reads).toBe(reads)
  })

  test('while the stream is being loaded is not lost', async () => {
    const { store, elsewhere, logged } = await twoEvents()
    const cold = notesStreams({ store })
    const { promise: began, resolve: begin } = withResolvers<void>()
    const { promise: released, resolve: letGo } = withResolvers<void>()
    const readStream = store.readStream.bind(store)
    store.readStream = async (...asked) => {
      const page = await readStream(...asked)
      begin()
      await released
      return page
    }
    const loading = cold.load('c')
    await began
    await elsewhere({ type: 'close' })
    cold.follow('c', logged().at(-1)!)
    letGo()
    expect(await loading).toMatchObject({ revision: 3, state: { closed: true } })
    expect(cold.peek('c')).toMatchObject({ revision: 3, state: { closed: true } })
  })

  test('while the winner of a conflict is being read is not lost', async () => {
    const { store, streams, execute, elsewhere, logged } = await twoEvents()
    const readStream = store.readStream.bind(store)
    let pages = 0
    store.readStream = async (...asked) => {
      const page = await readStream(...asked)
      if (pages++ === 0) {
        await elsewhere({ type: 'close' })
        streams.follow('c', logged().at(-1)!)
      }
      return page
    }
    // Refused, though nothing is appended any more that would find out.
    expect((await refused(execute(say('d')))).code).toBe('conversation_frozen')
    expect(streams.peek('c')).toMatchObject({ revision: 3, state: { closed: true } })
  })

  test('of this node’s own append before its answer changes nothing', async () => {
    const { store, streams, execute, logged } = setUp()
    await execute(say('a'))
    store.faults.push((_, happen) => {
      const result = happen()
      streams.follow('c', logged().at(-1)!)
      return result
    })
    expect(await execute(say('b'))).toMatchObject({ kind: 'appended', events: [{ revision: 1 }], folded: { state: { said: 2 } } })
    expect(streams.peek('c')).toMatchObject({ revision: 1, state: { said: 2 } })
  })
})

describe('what the feed brings before the answer to an append', () => {
  async function racing(bring: (logged: RecordedEvent[]) => RecordedEvent[]) {
    const it = setUp()
    await it.execute(say('a'))
    it.store.faults.push(async (_, happen) => {
      const result = happen()
      await it.elsewhere(say('x'))
      await it.elsewhere(say('y'))
      for (const event of bring(it.logged())) it.streams.follow('c', event)
      return result
    })
    expect(await it.execute(say('b'))).toMatchObject({ kind: 'appended', events: [{ revision: 1 }] })
    return it.streams
  }

  test('is not taken back by it', async () => {
    const streams = await racing((logged) => logged)
    expect(streams.peek('c')).toMatchObject({ revision: 3, state: { said: 4 } })
  })

  test('with a hole is not hidden by it', async () => {
    const streams = await racing((logged) => logged.slice(-1))
    expect(streams.peek('c')).toBeUndefined()
    expect(await streams.load('c')).toMatchObject({ revision: 3, state: { said: 4 } })
  })
})

describe('closing', () => {
  test('waits for what is in the mailboxes', async () => {
    const { store, streams, execute, said } = setUp()
    const { fault, reached, letGo } = slow()
    store.faults.push(fault)
    const answers = [execute(say('a'))]
    await reached
    answers.push(execute(say('b')))
    let isClosed = false
    const closing = streams.close().then(() => {
      isClosed = true
    })
    await nextTurn()
    expect(isClosed).toBe(false)
    letGo()
    await closing
    expect(said()).toEqual(['a', 'b'])
    await Promise.all(answers)
  })

  test('saves what a restart would have to fold again', async () => {
    const { streams, sayMany, snapshots, store } = setUp()
    await sayMany(51)
    await sayMany(49, 'small')
    await streams.close()
    expect([...snapshots.saved.keys()]).toEqual([STREAM])
    expect(await notesStreams({ store, snapshots }).load('c')).toMatchObject({ revision: 50, state: { said: 51 } })
  })

  test('ends also where nothing can be saved', async () => {
    const { streams, sayMany, snapshots } = setUp()
    await sayMany(60)
    snapshots.failure = new Error('disk full')
    await expect(streams.close()).resolves.toBeUndefined()
  })
})
