/**
 * `npm run bench -- hostile [--mode limits|fifth|quiet] [--seconds 300] [--quiet-seconds 60] [--ordinary 100] [--hostile 1000]
 * [--kinds pages,edits,…] [--many 2000] [--generators 2] [--heap 512] [--server-dir ../other-checkout]`: ordinary users, a message a
 * second each and a look at the inbox every few seconds, first by themselves and then beside clients that each do their worst with
 * valid tokens. `limits`: each at its own limits, asking on when refused; `fifth`: all together held to what leaves a fifth of each
 * core idle; `quiet`: none. In the end each acknowledged message must be in the log once, in order.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Convolog } from './convolog.js'
import { megabytes, milliseconds, printTable } from './figures.js'
import { holdToIdleFifth } from './hostile/controller.js'
import { Generator } from './hostile/generators.js'
import { kinds } from './hostile/kinds.js'
import type { HostileCounts, HostileReport, OrdinaryReport, Phase } from './hostile/messages.js'
import { type Made, hostileAppKeys, makeScene } from './hostile/scene.js'
import { type Attack, rowsOf } from './hostile/table.js'
import { verify } from './hostile/verify.js'
import { Watch } from './hostile/watch.js'

const WARM_UP_MS = 5_000
/** What was begun in the attack is answered by then, or not at all. */
const AFTERWARDS_MS = 20_000
/** The scene, the answers and the look at the log: beyond it something hangs. */
const BESIDE_TRAFFIC_MS_MAX = 420_000
const modes = ['limits', 'fifth', 'quiet'] as const

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: {
    mode: { type: 'string', default: 'limits' },
    seconds: { type: 'string', default: '300' },
    'quiet-seconds': { type: 'string', default: '60' },
    ordinary: { type: 'string', default: '100' },
    hostile: { type: 'string', default: '1000' },
    kinds: { type: 'string', default: Object.keys(kinds).join(',') },
    many: { type: 'string', default: '2000' },
    generators: { type: 'string', default: '2' },
    heap: { type: 'string', default: '512' },
    'server-dir': { type: 'string' },
  },
})
const mode = oneOf('--mode', values.mode, modes)
const kindNames = values.kinds.split(',').map((name) => oneOf('--kinds', name, Object.keys(kinds)))
const hostileCount = mode === 'quiet' ? 0 : Number(values.hostile)

console.log(
  `Convolog under attack, on all cores, hostile clients at the lowest priority, Node ${process.versions.node}, heap ${values.heap} MB, mode ${mode}`,
)

const generators: Generator[] = []
setTimeout(
  () => {
    console.error('the bench has not ended in time')
    process.exit(1)
  },
  (Number(values.seconds) + Number(values['quiet-seconds'])) * 1_000 + BESIDE_TRAFFIC_MS_MAX,
).unref()
const convolog = await Convolog.start(
  {
    APP_KEYS: ['bench:bench-secret-0123456789', ...hostileAppKeys(hostileCount).map(({ name, secret }) => `${name}:${secret}`)].join(','),
    FRAMES_PER_SECOND: '60',
    LOG_LEVEL: 'error',
  },
  { nodeArgs: [`--max-old-space-size=${values.heap}`], serverDir: values['server-dir'], onBothCores: true },
)
try {
  await run()
} finally {
  for (const generator of generators) await generator.stop()
  await convolog.stop()
}
process.exit(process.exitCode ?? 0)

async function run(): Promise<void> {
  const startedAt = performance.now()
  const made = await makeScene(convolog, {
    ordinary: Number(values.ordinary),
    hostile: hostileCount,
    kinds: kindNames,
    many: Number(values.many),
  })
  console.log(`the scene was made in ${milliseconds(performance.now() - startedAt)}, RSS ${megabytes(convolog.program.rssBytes())}`)
  const watch = new Watch(convolog)
  const ordinary = await start({ role: 'ordinary', scene: made.scene, users: made.ordinary })
  await sleep(WARM_UP_MS)
  await phase(ordinary, 'quiet', Number(mode === 'quiet' ? values.seconds : values['quiet-seconds']))
  const attack = mode === 'quiet' ? undefined : await runAttack(made, ordinary)
  ordinary.tell({ type: 'phase', phase: 'after' })
  console.log('the attack is over, what is unanswered may come')
  await sleep(convolog.program.ended === undefined ? AFTERWARDS_MS : 0)
  const report = await ordinary.report<OrdinaryReport>()
  watch.stop()
  const verdict = await verify(convolog, report).catch((error: Error) => console.error(error.message))
  const { ended } = convolog.program
  if (ended !== undefined || !verdict || verdict.lost + verdict.doubled + verdict.reordered + verdict.holes > 0) process.exitCode = 1
  printTable(rowsOf({ mode, report, attack, watch, verdict, ended }))
}

async function start(job: Parameters<typeof Generator.start>[0]): Promise<Generator> {
  const generator = await Generator.start(job)
  generators.push(generator)
  return generator
}

/** Ends early when the server does. */
async function phase(ordinary: Generator, name: Phase, seconds: number): Promise<void> {
  console.log(`${name}, ${seconds} s`)
  ordinary.tell({ type: 'phase', phase: name })
  for (const endsAt = performance.now() + seconds * 1_000; performance.now() < endsAt && convolog.program.ended === undefined; )
    await sleep(200)
}

async function runAttack({ scene, hostile }: Made, ordinary: Generator): Promise<Attack> {
  const count = Number(values.generators)
  const attackers: Generator[] = []
  for (let i = 0; i < count; i++)
    attackers.push(
      await start({ role: 'hostile', scene, clients: hostile.filter((_, n) => Math.floor(n / kindNames.length) % count === i) }),
    )
  const setRate = (perSecond: number | null) => {
    for (const attacker of attackers) attacker.tell({ type: 'rate', perSecond: perSecond === null ? null : perSecond / count })
  }
  const stopped = new AbortController()
  const holding = mode === 'fifth' ? holdToIdleFifth(stopped.signal, setRate) : undefined
  if (!holding) setRate(null)
  const startedAt = performance.now()
  await phase(ordinary, 'attack', Number(values.seconds))
  stopped.abort()
  const seconds = (performance.now() - startedAt) / 1_000
  const reports = await Promise.all(attackers.map((attacker) => attacker.report<HostileReport>()))
  for (const attacker of attackers) await attacker.stop()
  return { clients: hostile.length, counts: sumOf(reports), held: await holding, seconds }
}

function sumOf(reports: readonly HostileReport[]): HostileCounts {
  const counts: HostileCounts = {}
  for (const report of reports)
    for (const [kind, byCode] of Object.entries(report.counts))
      for (const [code, n] of Object.entries(byCode)) {
        counts[kind] ??= {}
        counts[kind][code] = (counts[kind][code] ?? 0) + n
      }
  return counts
}

function oneOf<Name extends string>(option: string, name: string, known: readonly Name[]): Name {
  const found = known.find((one) => one === name)
  if (found !== undefined) return found
  console.error(`${option} knows ${known.join(', ')}, not "${name}".`)
  process.exit(1)
}
