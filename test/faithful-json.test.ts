import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Refusal } from '../src/domain/errors.js'
import { parseFrame } from '../src/gateway/frames.js'
import { isKeptByDouble, requireFaithfulJson } from '../src/schemas/faithful-json.js'

const fieldOf = (text: string): string | undefined => {
  try {
    requireFaithfulJson(JSON.parse(text), text)
    return undefined
  } catch (error) {
    return error instanceof Refusal ? error.errors?.[0]?.field : String(error)
  }
}

describe('a number', () => {
  test.each([
    '0',
    '-0',
    '1',
    '0.1',
    '1.10',
    '1e2',
    '1E+2',
    '1.5e-7',
    '100000000000000000000',
    '9007199254740992',
    '1e308',
    '5e-324',
    '0e999',
    '0.30000000000000004',
    '-12.50',
  ])('%s is kept', (text) => expect(isKeptByDouble(text)).toBe(true))
  test.each([
    '12345678901234567890',
    '9007199254740993',
    '1e400',
    '-1e400',
    '1e-400',
    '0.1000000000000000055511151231257827',
    '3.14159265358979323846',
  ])('%s is not', (text) => expect(isKeptByDouble(text)).toBe(false))
  test('that a program wrote is always kept', () => {
    fc.assert(fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => isKeptByDouble(JSON.stringify(value))))
  })
})

describe("the app's own JSON", () => {
  test.each([
    ['{"custom":{"a":12345678901234567890}}', 'custom.a'],
    ['{"custom":{"a":[1,{"b":1e400}]}}', 'custom.a.b'],
    ['{"custom":{"a":[1,1e-400]}}', 'custom.a'],
    ['{"custom":{"a":1,"a":1}}', 'custom.a'],
    [String.raw`{"custom":{"a":1,"b":{"x":1},"\u0061":1}}`, 'custom.a'],
    ['{"name":"x","content":{"type":"custom","data":{"a":1,"b":2,"a":3}}}', 'content.data.a'],
    ['{"content":{"custom":{"a":{"b":1,"b":1}}}}', 'content.custom.a.b'],
    [String.raw`{"custom":{"a":"\"}","b":9007199254740993}}`, 'custom.b'],
  ])('%s is refused, and the field named', (text, field) => expect(fieldOf(text)).toBe(field))

  test.each([
    '{"custom":{"a":{"a":1},"b":{"a":1}}}',
    '{"custom":{"a":[{"x":1},{"x":1}]}}',
    '{"custom":{"text":"12345678901234567890, \\"a\\":1, \\"a\\":1"}}',
    '{"custom":{"ok":1},"other":12345678901234567890}',
    '{"custom":{},"a":1,"a":1}',
    '{"custom":null}',
    '[1]',
    'null',
  ])('%s is taken', (text) => expect(fieldOf(text)).toBeUndefined())

  test('as programs write it is always taken', () => {
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (custom) => fieldOf(JSON.stringify({ custom })) === undefined))
  })

  test('is checked in frames too, and the answer has the ref', () => {
    const frame = (data: string) =>
      `{"type":"message.send","ref":7,"conversationId":"g-1","clientMessageId":"m","content":{"type":"custom","data":${data}}}`
    expect(parseFrame(frame('{"a":1.10}'))).toMatchObject({ ref: 7 })
    expect(() => parseFrame(frame('{"a":1,"a":1}'))).toThrow(expect.objectContaining({ ref: 7, message: 'content.data.a: is named twice' }))
  })
})
