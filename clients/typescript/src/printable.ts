/** Text of a server as an error may show it: not endless, and nothing in it steers a terminal or a log. */

/** Longest text that is shown of what a server says, in UTF-16 units. */
const MAX_SHOWN = 2000;
/** Controls, format characters (some turn the direction of text), lone surrogates, line separators. */
const STEERING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** The text with such characters as escapes, `\x1b`, cut where it is longer than `limit`. */
export function printable(text: string, limit = MAX_SHOWN): string {
  const cut = text.length > limit ? `… (${text.length} characters)` : '';
  return text.slice(0, limit).replace(STEERING, escaped) + cut;
}

const NAMED: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  const hex = code.toString(16);
  if (code > 0xffff) return `\\U${hex.padStart(8, '0')}`;
  return NAMED[character] ?? (code > 0xff ? `\\u${hex.padStart(4, '0')}` : `\\x${hex.padStart(2, '0')}`);
}
