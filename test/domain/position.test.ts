import { describe, expect, test } from 'vitest'
import { RecordedEvent } from '../../src/domain/event-store.js'
import { hashInMetadata, positionOf } from '../../src/domain/position.js'

const hash = 'Ab3dE_9x-mNo5pQr7sTu9vWx1yZa3bCd5eFg7hIj9kL'
const other = 'zzzzzzzz-mNo5pQr7sTu9vWx1yZa3bCd5eFg7hIj9kL'

describe('The hash in the text of metadata begins as the one that a parser finds, whoever wrote it:', () => {
  test.each([
    ['by our writer', JSON.stringify({ actor: { userId: 'anna' }, at: 1, schemaVersion: 1, hash })],
    ['in another order', JSON.stringify({ hash, at: 1 })],
    ['the only key', JSON.stringify({ hash })],
    ['with white space', JSON.stringify({ at: 1, hash }, null, 1)],
    ['named twice', `{"hash":"${other}","at":1,"hash":"${hash}"}`],
    ['beside one of something else', JSON.stringify({ hash, x: { at: 1, hash: other } })],
    ['in a text that looks like it', JSON.stringify({ hash, x: `,"hash":"${other}` })],
    ['with an escape', `{"at":1,"hash":"\\u0041b3dE_9x${hash.slice(8)}"}`],
    ['of another length', JSON.stringify({ at: 1, hash: 'short' })],
    ['followed by a key of the same length', `{"at":1,"hash":"${hash.slice(0, 30)}","b":"12345"}`],
    ['absent', JSON.stringify({ at: 1 })],
    ['with an escape behind its beginning', `{"at":1,"hash":"${hash.slice(0, 41)}\\""}`],
    ['a number', JSON.stringify({ at: 1, hash: 12345678901 })],
  ])('%s', (_, json) => {
    const { hash: parsed } = JSON.parse(json) as { hash?: unknown }
    expect(positionOf('', hashInMetadata(json))).toBe(positionOf('', parsed))
  })
})

test('a position is the place and eight characters of the hash; a place without a hash stands alone', () => {
  expect(positionOf('0042', hash)).toBe('0042.Ab3dE_9x')
  for (const none of [undefined, 'short', '!!!!!!!!', 12345678901]) expect(positionOf('0042', none)).toBe('0042')
  const stored = { id: 'a', type: 'MessageSent', stream: 'conversation-a', revision: 0, dataJson: '{}' }
  const event = new RecordedEvent(stored, '0042', JSON.stringify({ at: 1, hash }))
  expect(event.position).toBe('0042.Ab3dE_9x')
  expect(event.metadata.hash).toBe(hash)
})
