/** What has to happen at once. The values of routes are described in sessions.ts. */
import { LAST_SEEN_DEVICES_MAX, LAST_SEEN_TTL_MS, ROUTE_TTL_MS, USE_TTL_MS } from './keys.js'

export type ScriptName = keyof typeof scripts

export const scripts = {
  /**
   * A device is here: KEYS route; ARGV deviceId, tail, at ('' for a session that has just begun, said twice where a refresh met it).
   * Answers when it began, and the route as it was before; '' in place of the time where a newer session has the device.
   */
  enter: `
    local before = redis.call('HGETALL', KEYS[1])
    local at = ARGV[3]
    local held = redis.call('HGET', KEYS[1], ARGV[1])
    local isOwn = held and string.sub(held, -string.len(ARGV[2])) == ARGV[2]
    local heldSince = held and string.match(held, '^%-?(%d+)')
    if at == '' and isOwn then
      at = heldSince
    elseif at == '' then
      local now = redis.call('TIME')
      at = string.format('%d', now[1] * 1000000 + now[2])
    elseif heldSince and not isOwn and tonumber(heldSince) > tonumber(at) then
      return {'', before}
    end
    redis.call('HSET', KEYS[1], ARGV[1], at .. ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ${ROUTE_TTL_MS})
    return {at, before}`,

  /** A session has lost its socket and has its grace from now on: KEYS route; ARGV deviceId, tail. */
  leave: `
    local held = redis.call('HGET', KEYS[1], ARGV[1])
    if held and string.sub(held, -string.len(ARGV[2])) == ARGV[2] and string.sub(held, 1, 1) ~= '-' then
      redis.call('HSET', KEYS[1], ARGV[1], '-' .. held)
    end
    return 1`,

  /** A session is over: KEYS route, last seen; ARGV deviceId, tail, when it was seen last. Answers the rest of the route, or nil where it was not there. */
  forget: `
    local held = redis.call('HGET', KEYS[1], ARGV[1])
    if not held or string.sub(held, -string.len(ARGV[2])) ~= ARGV[2] then return false end
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.call('ZADD', KEYS[2], 'GT', ARGV[3], ARGV[1])
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, ${-LAST_SEEN_DEVICES_MAX - 1})
    redis.call('PEXPIRE', KEYS[2], ${LAST_SEEN_TTL_MS})
    return redis.call('HGETALL', KEYS[1])`,

  /** Units more that a caller uses: KEYS use; ARGV units. Answers how many there are in the second that runs. */
  use: `
    local before = redis.call('EXISTS', KEYS[1])
    local total = redis.call('INCRBY', KEYS[1], ARGV[1])
    if before == 0 then redis.call('PEXPIRE', KEYS[1], ${USE_TTL_MS}) end
    return total`,
} as const
