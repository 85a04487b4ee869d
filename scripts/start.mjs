// `npm start`: sets up what is missing, then runs the program in this very process, so that signals reach it.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root, setUp } from './setup.mjs'

setUp()
const main = join(root, 'dist/main.js')
process.argv[1] = main
await import(pathToFileURL(main).href)
