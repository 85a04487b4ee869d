import { type App, startApp } from '../app.js'
import type { Config } from '../config.js'
import { withDeadline } from '../domain/waits.js'
import { type Secrets, loadSecrets } from '../secrets.js'
import { Shutdown } from '../shutdown.js'
import { type Logger, createLogger } from '../logging.js'
import { openDatabase } from './database.js'
import { End } from './end.js'

/** From a signal to the end of everything that was started. */
const STOP_MS_MAX = 14_000
/** Of that, for a start that is under way to break off. */
const BREAK_OFF_MS_MAX = 3_000
/** Of that, for the server without its Postgres. */
const APP_STOP_MS_MAX = 9_500
/** After that the process ends, whatever still hangs. */
const EXIT_MS_MAX = 14_500

/** Serves until a signal comes, or it cannot go on; then ends everything that was started, and the process. @throws what kept it from starting */
export async function serve(config: Config): Promise<void> {
  const logger = createLogger(config.logLevel)
  const end = new End(logger)
  const shutdown = new Shutdown(logger)
  const starting = start(config, logger, end, shutdown)
  try {
    const reason = await Promise.race([starting.then(() => end.reason), end.reason])
    process.exitCode = 'error' in reason ? 1 : 0
  } finally {
    await endAll(starting, shutdown)
  }
  process.exit()
}

async function start(config: Config, logger: Logger, end: End, shutdown: Shutdown): Promise<void> {
  const { connectionString, exited } = await openDatabase(config, logger, shutdown, end.signal)
  void exited.then((error) => error && end.fail(error))
  const secrets = await loadSecrets(config)
  const app = await startApp({ config, secrets, connectionString, logger, onFatal: (error) => end.fail(error) })
  shutdown.add('server', APP_STOP_MS_MAX, () => app.stop())
  sayHello(app, secrets, config)
}

/** A start that is under way breaks off first: what it has begun is ended with the rest. */
async function endAll(starting: Promise<void>, shutdown: Shutdown): Promise<void> {
  const startedAt = performance.now()
  setTimeout(() => process.exit(), EXIT_MS_MAX).unref()
  const settled = starting.catch(() => undefined)
  await withDeadline(settled, BREAK_OFF_MS_MAX, () => new Error('late')).catch(() => undefined)
  await shutdown.run(STOP_MS_MAX - (performance.now() - startedAt))
}

/** For people: where it is, and a thing to try. */
function sayHello({ url }: App, { keptIn }: Secrets, { logLevel }: Config): void {
  if (logLevel === 'silent') return
  console.log(`
Convolog listens on ${url}   (start page: ${url}/   reference: ${url}/docs)
${keptIn ? `The app's secret and the JWT secret were made on the first start: ${keptIn}` : 'The secrets are those of the environment.'}

A token for a user:     npm run -s convolog -- token alice
To try it, type in two other terminals, and talk:
                        npm run -s convolog -- chat alice bob
                        npm run -s convolog -- chat bob alice
`)
}
