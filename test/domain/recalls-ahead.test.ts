import { expect, test } from 'vitest'
import { RecordedEvent } from '../../src/domain/event-store.js'
import { RecallsAhead } from '../../src/domain/recalls-ahead.js'

const eventAt = (position: string) =>
  new RecordedEvent({ id: 'e', type: 'MessageRecalled', stream: 'conversation-c', revision: 1, dataJson: '{}' }, position, '{}')

test('a recall is ahead until the feed has brought it', () => {
  const recalls = new RecallsAhead()
  recalls.add('c', 1, '05')
  recalls.follow('c', eventAt('04'))
  expect(recalls.of('c')?.has(1)).toBe(true)
  recalls.follow('c', eventAt('05'))
  expect(recalls.of('c')).toBeUndefined()
})

test('a recall that was written before the feed began is not waited for', () => {
  const recalls = new RecallsAhead()
  recalls.startAt('05')
  recalls.add('c', 1, '05')
  expect(recalls.of('c')).toBeUndefined()
  recalls.add('c', 1, '06')
  expect(recalls.of('c')?.has(1)).toBe(true)
})
