import { describe, expect, test } from 'vitest'
import { type HashKey, keyedHash, newHashKey } from '../../src/domain/keyed-hash.js'

/** The bytes 0, 1, 2, … of the reference's test vectors. */
const bytesUpTo = (length: number) => String.fromCharCode(...Array.from({ length }, (_, i) => i))
const littleEndian = (...bytes: number[]) => Buffer.from(bytes).readUInt32LE()

describe('the keyed hash', () => {
  test('is HalfSipHash-2-4, as its authors have published it', () => {
    const key: HashKey = [littleEndian(0, 1, 2, 3), littleEndian(4, 5, 6, 7)]
    expect(keyedHash(key, bytesUpTo(0))).toBe(littleEndian(0xa9, 0x35, 0x9f, 0x5b))
    expect(keyedHash(key, bytesUpTo(1))).toBe(littleEndian(0x27, 0x47, 0x5a, 0xb8))
    expect(keyedHash(key, bytesUpTo(2))).toBe(littleEndian(0xfa, 0x62, 0xa6, 0x03))
  })

  test('is another with another key', () => {
    const [one, other] = [newHashKey(), newHashKey()]
    const ids = Array.from({ length: 64 }, (_, i) => `user-${i}`)
    expect(ids.map((id) => keyedHash(one, id))).not.toEqual(ids.map((id) => keyedHash(other, id)))
  })
})
