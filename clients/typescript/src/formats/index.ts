/**
 * Tells from the headers of image and sound files what they are and whether they are whole. Nothing is
 * decoded, and what a usual decoder reads is accepted. `sheaf_client._formats` does the same in Python;
 * tests/contract/files.json holds both to one set of files.
 */
import { BrokenFile } from './broken.js';
import { lookAtImage } from './images.js';
import { lookAtSound } from './sounds.js';

export type FileKind = 'image' | 'audio';

/** What is wrong with a file, in a sentence; undefined where nothing is that its header shows. */
export function faultOfFile(data: Uint8Array, kind: FileKind): string | undefined {
  try {
    (kind === 'image' ? lookAtImage : lookAtSound)(data);
  } catch (error) {
    if (error instanceof BrokenFile) return error.message;
    throw error;
  }
  return undefined;
}
