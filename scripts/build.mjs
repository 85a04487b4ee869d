// `npm run build`: installs what is missing and compiles src into dist when the sources have changed.
import { setUpForDevelopment } from './setup.mjs'

setUpForDevelopment()
