import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { NODE_ANSWERS_BYTES_MAX, STALLED_ANSWER_MS_MAX, USER_ANSWERS_BYTES_MAX, UnsentAnswers } from '../../src/api/unsent-answers.js'
import type { Refusal } from '../../src/domain/errors.js'

const PAGE_BYTES = 512 << 10

function socket() {
  const handle = { bytesWritten: 0, writeQueueSize: 0 }
  const fake = Object.assign(new EventEmitter(), { _handle: handle, isDestroyed: false, destroy: () => (fake.isDestroyed = true) })
  return { fake, handle, socket: fake as unknown as Socket }
}

const codeOf = (work: () => unknown): string => {
  try {
    work()
    return 'none'
  } catch (error) {
    return (error as Refusal).code
  }
}

describe('answers that are not read', () => {
  test('are bounded for a caller, who is refused before the work is done, and not for others', () => {
    const answers = new UnsentAnswers()
    const { socket: line } = socket()
    for (let n = 0; n < USER_ANSWERS_BYTES_MAX / PAGE_BYTES; n += 1) answers.expect('anna', PAGE_BYTES, line)
    expect(codeOf(() => answers.expect('anna', PAGE_BYTES, line))).toBe('rate_limited')
    expect(codeOf(() => answers.expect('ben', PAGE_BYTES, line))).toBe('none')
  })

  test('count for what they have come to, until they are taken or the line is closed', () => {
    const answers = new UnsentAnswers()
    const { fake, socket: line } = socket()
    const [first, second] = [answers.expect('anna', PAGE_BYTES, line), answers.expect('anna', PAGE_BYTES, line)]
    answers.sent(first, 100, 0)
    expect(answers.bytes).toBe(PAGE_BYTES + 100)
    answers.taken(first)
    answers.taken(first)
    expect(answers.bytes).toBe(PAGE_BYTES)
    fake.emit('close')
    answers.sent(second, 100, 0)
    answers.taken(second)
    expect(answers.bytes).toBe(0)
  })

  test('are bounded for the node: those who hold most are refused', () => {
    const answers = new UnsentAnswers()
    const { socket: line } = socket()
    const count = NODE_ANSWERS_BYTES_MAX / USER_ANSWERS_BYTES_MAX
    for (let n = 0; n < count; n += 1) answers.expect(`u${n}`, USER_ANSWERS_BYTES_MAX - PAGE_BYTES * 2, line)
    for (let n = 0; n < count; n += 1) answers.expect(`u${n}`, PAGE_BYTES, line)
    for (let n = 0; n < count; n += 1) answers.expect(`v${n}`, PAGE_BYTES, line)
    expect(codeOf(() => answers.expect('u0', PAGE_BYTES, line))).toBe('rate_limited')
    expect(codeOf(() => answers.expect('w', PAGE_BYTES, line))).toBe('none')
  })

  test('end with the line where the client takes nothing, and go on where it reads slowly', () => {
    const answers = new UnsentAnswers()
    const [stalled, slow, working] = [socket(), socket(), socket()]
    for (const { socket: line } of [stalled, slow]) answers.sent(answers.expect('anna', PAGE_BYTES, line), 1_000_000, 0)
    answers.expect('anna', PAGE_BYTES, working.socket)
    for (let now = 0; now <= STALLED_ANSWER_MS_MAX + 1_000; now += 1_000) {
      slow.handle.bytesWritten += 1
      answers.cutStalled(now)
    }
    expect([stalled, slow, working].map(({ fake }) => fake.isDestroyed)).toEqual([true, false, false])
  })
})
