import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const file = readFileSync(new URL('../docker-compose.yml', import.meta.url), 'utf8')

/** What a service mounts: volume → place. `x-node` is what all nodes have. */
function mountsOf(service: string): Record<string, string> {
  const lines = file.split('\n')
  const first = lines.findIndex((line) => line.startsWith(service.startsWith('x-') ? `${service}:` : `  ${service}:`))
  const indent = lines[first]!.search(/\S/)
  const end = lines.findIndex((line, n) => n > first && line !== '' && line.search(/\S/) <= indent)
  const block = lines.slice(first, end).join('\n')
  return Object.fromEntries([...block.matchAll(/^ +- ([\w-]+):(\/[\w/-]+)(?::ro)?$/gm)].map(([, volume, place]) => [volume!, place!]))
}

test('the key of the certificate authority is readable by its owner alone, in a volume that no server mounts', () => {
  const maker = mountsOf('certificates')
  const [, place] = /create-ca -out (\/\w+);/.exec(file)!
  const volume = Object.keys(maker).find((name) => maker[name] === place)!
  expect(volume).toBeDefined()
  expect(file).toContain(`chmod 600 ${place}/ca.key`)
  for (const server of ['x-node', 'kurrentdb', 'postgres', 'redis', 'nginx', 'prometheus'])
    expect(mountsOf(server)).not.toHaveProperty(volume)
})

test('nodes mount no private key: KurrentDB has its own in a volume of its own', () => {
  const [, place] = /CERTIFICATE_PRIVATE_KEY_FILE: (\/[\w-]+)\//.exec(file)!
  expect(Object.values(mountsOf('kurrentdb'))).toContain(place)
  expect(Object.values(mountsOf('x-node'))).toEqual(['/certificates'])
  expect(place).not.toBe('/certificates')
})
