/** Bodies of answers, read within a bound: so many bytes once they are unpacked. */
import { BadResponseError } from './errors.js';

/** Most bytes of an answer, or of one event of a stream, unless the caller says otherwise. */
export const DEFAULT_ANSWER_BYTES = 512 * 2 ** 20;

/** What is said of an answer or an event beyond the limit. */
export function tooLarge(limit: number, what = 'The answer'): BadResponseError {
  return new BadResponseError(
    `${what} is larger than ${limit} bytes; the client's \`maxAnswerBytes\` sets the limit.`,
  );
}

/**
 * All bytes of an answer. A connection that breaks rejects as it does for fetch.
 *
 * @throws BadResponseError It is larger than `limit`.
 */
export async function readBody(response: Response, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const told = Number(response.headers.get('Content-Length') ?? 0);
  const stop = async () => {
    await response.body?.cancel().catch(() => undefined);
    return tooLarge(limit);
  };
  if (told > limit) throw await stop();
  if (!response.body) return new Uint8Array(0);
  const reader = response.body.getReader();
  // One array that grows: pieces of a few bytes would each take the room of an object.
  let read = new Uint8Array(Math.min(told || 65_536, 2 ** 20));
  let size = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const { value } = piece;
    if (size + value.byteLength > limit) {
      reader.releaseLock();
      throw await stop();
    }
    if (size + value.byteLength > read.byteLength) {
      const larger = new Uint8Array(Math.min(Math.max(2 * read.byteLength, size + value.byteLength), limit));
      larger.set(read.subarray(0, size));
      read = larger;
    }
    read.set(value, size);
    size += value.byteLength;
  }
  return read.subarray(0, size);
}
