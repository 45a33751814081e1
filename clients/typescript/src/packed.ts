/** Lengths within MessagePack, held against what is there before anything is made of it. */

/** The bytes behind those that begin a value of a fixed length; -1 for what has a length of its own. */
const FIXED = new Int8Array(256).fill(-1);
FIXED.fill(0, 0x00, 0x80); // small whole numbers
FIXED.fill(0, 0xe0, 0x100);
for (const head of [0xc0, 0xc1, 0xc2, 0xc3]) FIXED[head] = 0; // nil, none, false, true
[5, 9].forEach((size, i) => (FIXED[0xca + i] = size - 1)); // floats
[2, 3, 5, 9].forEach((size, i) => (FIXED[0xcc + i] = FIXED[0xd0 + i] = size - 1)); // whole numbers
[1, 2, 4, 8, 16].forEach((size, i) => (FIXED[0xd4 + i] = size + 1)); // extensions

/**
 * Whether all that lists and objects say to hold could be there: a value takes a byte at least. A decoder makes room
 * for what a list says to hold, and a few hundred bytes may say that of gigabytes.
 *
 * Of what breaks off elsewhere the decoder tells.
 */
export function isPlausible(data: Uint8Array<ArrayBuffer>): boolean {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = data.length;
  let at = 0;
  for (let open = 1; open > 0 && at < end; open--) {
    const head = data[at++]!;
    const fixed = FIXED[head]!;
    if (fixed >= 0) {
      at += fixed;
      continue;
    }
    if (head < 0x90) open += 2 * (head & 0x0f);
    else if (head < 0xa0) open += head & 0x0f;
    else if (head < 0xc0) at += head & 0x1f;
    else {
      const width = head < 0xc7 ? 1 << (head - 0xc4) : head < 0xca ? 1 << (head - 0xc7) : widthOf(head);
      if (at + width > end) return true;
      const length = width === 1 ? view.getUint8(at) : width === 2 ? view.getUint16(at) : view.getUint32(at);
      at += width;
      if (head >= 0xde) open += 2 * length;
      else if (head >= 0xdc) open += length;
      else at += length + (head < 0xc7 || head >= 0xd9 ? 0 : 1);
    }
    if (open - 1 > end - at && at <= end) return false;
  }
  return true;
}

/** Bytes of a length, behind the heads of long texts, lists and objects. */
function widthOf(head: number): number {
  return head < 0xdc ? 1 << (head - 0xd9) : head % 2 === 0 ? 2 : 4;
}
