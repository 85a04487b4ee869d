import { LRUCache } from 'lru-cache'

/**
 * A map of at most `entriesMax` entries; those not used for longest are forgotten. It takes memory as it fills: given `max` instead of
 * a size, the library would allocate all its slots at once.
 */
export const lruMap = <Key extends {}, Value extends {}>(entriesMax: number) =>
  new LRUCache<Key, Value>({ maxSize: entriesMax, sizeCalculation: () => 1 })
