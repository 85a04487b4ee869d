// `npm start`: sets up what is missing, then runs the program in this very process, so that signals reach it.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root, setUp } from './setup.mjs'

const PARENT_LOOK_MS = 250

// npm passes SIGTERM and SIGINT on, but no SIGHUP, and of its own death it tells nobody: that its child outlives it is meant by nobody.
const parent = process.ppid
const isStartedByNpm = ['start', 'convolog'].includes(process.env.npm_lifecycle_event)

setUp()
if (isStartedByNpm) endWithParent()
const main = join(root, 'dist/main.js')
process.argv[1] = main
await import(pathToFileURL(main).href)

function endWithParent() {
  const look = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(look)
    process.kill(process.pid, 'SIGTERM')
  }, PARENT_LOOK_MS).unref()
}
