/** Base64 with the standard alphabet and padding (RFC 4648), as strict as the server and the same on every platform. */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const CODES = Uint8Array.from(ALPHABET, (letter) => letter.charCodeAt(0));
const VALUES = new Uint8Array(256);
for (const [value, code] of CODES.entries()) VALUES[code] = value;

/** The text of some bytes. */
export function toBase64(bytes: Uint8Array): string {
  const over = bytes.length % 3;
  const codes = new Uint8Array(Math.ceil(bytes.length / 3) * 4);
  let to = 0;
  for (let from = 0; from < bytes.length; from += 3) {
    const group = (bytes[from]! << 16) | (bytes[from + 1]! << 8) | bytes[from + 2]!;
    codes[to++] = CODES[group >> 18]!;
    codes[to++] = CODES[(group >> 12) & 63]!;
    codes[to++] = CODES[(group >> 6) & 63]!;
    codes[to++] = CODES[group & 63]!;
  }
  // What the last group reads beyond the end counts as zeros.
  if (over > 0) codes.fill('='.charCodeAt(0), to - 3 + over);
  return new TextDecoder().decode(codes);
}

/** The bytes of a text; undefined where it is not base64. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  // Looking for a foreign character needs no stack, however long the text is; matching all of it would.
  const foreign = /[^A-Za-z0-9+/]/.test(padding ? text.slice(0, -padding) : text);
  if (text.length % 4 !== 0 || foreign) return undefined;
  const codes = new TextEncoder().encode(text);
  const bytes = new Uint8Array((codes.length / 4) * 3);
  let to = 0;
  for (let from = 0; from < codes.length; from += 4) {
    const group =
      (VALUES[codes[from]!]! << 18) |
      (VALUES[codes[from + 1]!]! << 12) |
      (VALUES[codes[from + 2]!]! << 6) |
      VALUES[codes[from + 3]!]!;
    bytes[to++] = group >> 16;
    bytes[to++] = group >> 8; // an item keeps its last eight bits
    bytes[to++] = group;
  }
  return padding ? bytes.slice(0, -padding) : bytes;
}
