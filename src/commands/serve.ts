import { type App, startApp } from '../app.js'
import type { Config } from '../config.js'
import { type Secrets, loadSecrets } from '../secrets.js'
import { withDatabase } from './database.js'

/** Serves until a signal comes, or the database is lost for good. */
export async function serve(config: Config): Promise<void> {
  await withDatabase(config, async (connectionString, logger, exited) => {
    const secrets = await loadSecrets(config)
    const app = await startApp({ config, secrets, connectionString, logger })
    sayHello(app, secrets, config)
    const reason = await Promise.race([untilSignal(), exited])
    if (reason) logger.fatal({ err: reason }, 'The server can not go on')
    process.exitCode = reason ? 1 : 0
    await app.stop()
  })
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

function untilSignal(): Promise<undefined> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(undefined))
  })
}
