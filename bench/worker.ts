import { fileURLToPath } from 'node:url'

/** The compiled file of a program in `workers/`. */
export const worker = (name: string) => fileURLToPath(new URL(`./workers/${name}.js`, import.meta.url))
