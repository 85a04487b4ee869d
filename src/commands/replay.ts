import { openEventStore } from '../app.js'
import type { Config } from '../config.js'
import type { Logger } from '../domain/logger.js'
import { ReadModels } from '../projections/read-models.js'
import { printProgress } from '../projections/replay-progress.js'

/** Builds the read models, or one of them, anew from the log, and swaps them in. @throws {Refusal} when another replay runs */
export async function replay(config: Config, connectionString: string, logger: Logger, projection: string | undefined): Promise<void> {
  const store = await openEventStore(config, connectionString, logger)
  const readModels = await ReadModels.open({
    connectionString,
    store,
    logger,
    fanoutOnWriteMax: config.fanoutOnWriteMembersMax,
    project: false,
  })
  try {
    await readModels.replay({ ...(projection === undefined ? {} : { projection }), onProgress: printProgress(process.stdout) })
  } finally {
    await readModels.close()
    await store.close()
  }
}
