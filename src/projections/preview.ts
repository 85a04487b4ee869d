import type { Content } from '../domain/events.js'

export const PREVIEW_CHARACTERS_MAX = 200

const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' })

/** What an inbox shows of a message: the beginning of a text, the name of a file, nothing of the rest. */
export function previewOf(content: Content): string | null {
  if (content.type === 'text') return cut(content.text)
  if (content.type === 'custom') return null
  return content.name === undefined ? null : cut(content.name)
}

/** At most so many Unicode characters, and no visible sign cut in two. */
function cut(text: string): string {
  if (text.length <= PREVIEW_CHARACTERS_MAX) return text
  let kept = ''
  let characters = 0
  // 200 characters are at most 400 units: no more can be needed of the text.
  const beginning = text.slice(0, 4 * PREVIEW_CHARACTERS_MAX)
  for (const { segment } of graphemes.segment(beginning)) {
    characters += [...segment].length
    if (characters > PREVIEW_CHARACTERS_MAX) break
    kept += segment
  }
  // One sign can be longer than the whole preview.
  return kept === '' ? [...beginning].slice(0, PREVIEW_CHARACTERS_MAX).join('') : kept
}
