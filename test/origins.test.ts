import { describe, expect, test } from 'vitest'
import { Origins, isOfHost, isOriginForm } from '../src/origins.js'

describe('an origin that a setting allows', () => {
  test.each<[string, string[], string[]]>([
    [
      'https://app.example',
      ['https://app.example', 'HTTPS://APP.example', 'https://app.example:443'],
      [
        'http://app.example',
        'https://app.example:8443',
        'https://x.app.example',
        'null',
        'https://app.example/path',
        'https://app.example.evil',
      ],
    ],
    ['https://app.example:443', ['https://app.example'], ['https://app.example:444']],
    ['http://localhost:3000', ['http://localhost:3000'], ['http://localhost', 'http://localhost:3001']],
    [
      'https://*.example.com',
      ['https://a.example.com', 'https://a.b.example.com', 'https://A.Example.com:443'],
      [
        'https://example.com',
        'https://.example.com',
        'https://evilexample.com',
        'http://a.example.com',
        'https://a.example.com:8443',
        'https://a.example.com.evil',
        'https://a@b.example.com',
      ],
    ],
    ['https://*.example.com:8443', ['https://a.example.com:8443'], ['https://a.example.com']],
    ['capacitor://localhost', ['capacitor://localhost'], ['ionic://localhost', 'http://localhost', 'capacitor://evil']],
    ['tauri://localhost', ['tauri://localhost'], ['null']],
    ['*', ['https://anything.example', 'null', 'ionic://localhost'], []],
  ])('%s', (setting, allowed, others) => {
    const origins = new Origins([setting])
    expect(isOriginForm(setting)).toBe(true)
    expect(allowed.filter((origin) => !origins.isAllowed(origin))).toEqual([])
    expect(others.filter((origin) => origins.isAllowed(origin))).toEqual([])
  })

  test.each([
    'app.example',
    'https://app.example/path',
    'https://app.example/',
    'https://*',
    'https://a.*.example',
    'https://*.*.example',
    'null',
    'https://',
    'https://a b',
    'https://me@app.example',
    'https://app.example?x',
  ])('is not %s', (text) => expect(isOriginForm(text)).toBe(false))
})

test.each([
  ['https://chat.example', 'chat.example', true],
  ['https://chat.example', 'CHAT.example', true],
  ['https://chat.example', 'chat.example:443', true],
  ['https://chat.example', 'chat.example:80', true],
  ['http://chat.example', 'chat.example', true],
  ['https://chat.example:8443', 'chat.example:8443', true],
  ['https://chat.example', 'chat.example:8443', false],
  ['https://chat.example:8443', 'chat.example', false],
  ['https://evil.example', 'chat.example', false],
  ['https://chat.example', undefined, false],
  ['null', 'chat.example', false],
])('a page of %s is of the host %s: %s', (origin, host, expected) => expect(isOfHost(origin, host)).toBe(expected))
