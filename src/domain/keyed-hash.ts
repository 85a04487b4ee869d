import { randomBytes } from 'node:crypto'

/** Two halves of 32 bits. Whoever knows it can choose texts that collide: it is never shown. */
export type HashKey = readonly [number, number]

/** A key that nobody can guess. */
export function newHashKey(): HashKey {
  const bytes = randomBytes(8)
  return [bytes.readInt32LE(0), bytes.readInt32LE(4)]
}

/**
 * Hashes a text with a key: HalfSipHash-2-4, made for hash tables whose keys strangers choose. Without the key nobody finds
 * texts that collide, which they easily do for a hash that is public. Of each character the lower 8 bits count.
 */
export function keyedHash([key0, key1]: HashKey, text: string): number {
  let v0 = key0
  let v1 = key1
  let v2 = 0x6c796765 ^ key0
  let v3 = 0x74656462 ^ key1
  const length = text.length
  const words = (length >>> 2) + 1
  for (let at = 0, word = 0; word < words; word++, at += 4) {
    let m = word === words - 1 ? length << 24 : 0
    const end = Math.min(4, length - at)
    for (let i = 0; i < end; i++) m |= (text.charCodeAt(at + i) & 0xff) << (8 * i)
    v3 ^= m
    // The round is written out twice rather than called: it gives four values, and an object a round would be garbage.
    for (let round = 0; round < 2; round++) {
      v0 = (v0 + v1) | 0
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
      v0 = (v0 << 16) | (v0 >>> 16)
      v2 = (v2 + v3) | 0
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
      v0 = (v0 + v3) | 0
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
      v2 = (v2 + v1) | 0
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
      v2 = (v2 << 16) | (v2 >>> 16)
    }
    v0 ^= m
  }
  v2 ^= 0xff
  for (let round = 0; round < 4; round++) {
    v0 = (v0 + v1) | 0
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0
    v0 = (v0 << 16) | (v0 >>> 16)
    v2 = (v2 + v3) | 0
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2
    v0 = (v0 + v3) | 0
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0
    v2 = (v2 + v1) | 0
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2
    v2 = (v2 << 16) | (v2 >>> 16)
  }
  return (v1 ^ v3) >>> 0
}
