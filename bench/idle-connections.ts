/** (large, idle) Devices that have said hello and are then silent: what each holds of the server's memory. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Convolog, inParallel } from './convolog.js'
import { Device } from './device.js'
import { type Row, kilobytes, megabytes } from './figures.js'

const CONNECTIONS = 10_000
/** With these the server has warmed up: what it takes for itself by then is not counted. */
const WARM_UP = 1_000
const AT_ONCE = 100
const SETTLE_MS = 5_000

export async function benchIdle(): Promise<Row[]> {
  const convolog = await Convolog.start()
  try {
    const devices = await connect(convolog, 0, WARM_UP)
    const before = await settledRss(convolog)
    devices.push(...(await connect(convolog, WARM_UP, CONNECTIONS)))
    const after = await settledRss(convolog)
    for (const device of devices) await device.ask({ type: 'ping' })
    for (const device of devices) device.close()
    return [
      {
        what: `(idle) each of ${CONNECTIONS.toLocaleString('en')} connections`,
        figure: kilobytes((after - before) / (CONNECTIONS - WARM_UP)),
        goal: '≤ 12 KB',
      },
      { what: '    the server with all of them', figure: megabytes(after) },
    ]
  } finally {
    await convolog.stop()
  }
}

const connect = (convolog: Convolog, from: number, to: number) =>
  inParallel(
    Array.from({ length: to - from }, (_, i) => `idle-${from + i}`),
    AT_ONCE,
    async (userId) => {
      const device = await Device.open(convolog.url)
      await device.hello({ token: convolog.token(userId) })
      return device
    },
  )

async function settledRss(convolog: Convolog): Promise<number> {
  await sleep(SETTLE_MS)
  return convolog.program.rssBytes()
}
