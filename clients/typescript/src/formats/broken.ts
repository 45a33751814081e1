/** The fault of a file that its bytes show. */

/** The file is none that the field takes, or a part of it is missing; the text is for the caller. */
export class BrokenFile extends Error {}

/** The fault of a file that ends too early. */
export function cutOff(what: string, where: string): BrokenFile {
  return new BrokenFile(`The ${what} file is cut off ${where}.`);
}

/** Run what reads a header; reading behind the end of the file is the file's fault. */
export function readHeader<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof RangeError ? cutOff(name, 'in its header') : error;
  }
}

/** Parts of a file that are looked through; recordings in fragments have many. */
export const MOST_PARTS = 20_000;

export function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** Whether the mark, one byte to a character, stands at a place. */
export function isAt(data: Uint8Array, place: number, mark: string): boolean {
  for (let i = 0; i < mark.length; i++) if (data[place + i] !== mark.charCodeAt(i)) return false;
  return true;
}

/** Whether the mark stands at `from` or behind it; the search begins at the end, where it is expected. */
export function standsBehind(data: Uint8Array, mark: string, from: number): boolean {
  let place = data.length;
  while ((place = data.lastIndexOf(mark.charCodeAt(0), place - 1)) >= from) {
    if (isAt(data, place, mark)) return true;
    if (place === 0) break;
  }
  return false;
}
