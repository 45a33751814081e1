/** What the bytes of a file are, by how they begin: who gave another file than was meant is told which. */
import { isAt } from './broken.js';

/** What a file is, where that can be told, and whether a decoder of sounds may read it. */
export interface Kind {
  name: string | undefined;
  sound: boolean;
}

/** Bytes at the beginning that tell text apart. */
const HEAD = 512;

/** Where the mark stands, the mark, and what it says. */
type Mark = readonly [place: number, mark: string, name: string];

const NO_SOUNDS: readonly Mark[] = [
  [0, '\x89PNG\r\n\x1a\n', 'a PNG image'],
  [0, '\xff\xd8\xff', 'a JPEG image'],
  [8, 'WEBP', 'a WebP image'],
  [0, 'GIF87a', 'a GIF image'],
  [0, 'GIF89a', 'a GIF image'],
  [0, 'II*\0', 'a TIFF image'],
  [0, 'MM\0*', 'a TIFF image'],
  [0, 'II+\0', 'a TIFF image'],
  [0, 'MM\0+', 'a TIFF image'],
  [0, '\xff\x4f\xff\x51', 'a JPEG 2000 image'],
  [4, 'jP  \r\n', 'a JPEG 2000 image'],
  [4, 'ftypavi', 'an AVIF image'],
  [4, 'ftyphei', 'a HEIF image'],
  [4, 'ftypmif1', 'a HEIF image'],
  [0, '8BPS', 'a Photoshop file'],
  [0, '\x76\x2f\x31\x01', 'an OpenEXR image'],
  [0, '%PDF-', 'a PDF document'],
  [0, 'PK\x03\x04', 'a ZIP archive'],
  [0, '\x1f\x8b', 'a gzip file'],
  [0, '\x28\xb5\x2f\xfd', 'a Zstandard file'],
  [0, '\x93NUMPY', 'a NumPy array'],
  [0, '\x89HDF\r\n\x1a\n', 'an HDF5 file'],
];
const SOUNDS: readonly Mark[] = [
  [8, 'WAVE', 'a WAV file'],
  [8, 'AVI ', 'an AVI video'],
  [8, 'AIF', 'an AIFF file'],
  [0, 'fLaC', 'a FLAC file'],
  [0, 'OggS', 'an Ogg file'],
  [0, 'ID3', 'an MP3 file'],
  [0, '.snd', 'an AU file'],
  [0, '\x1a\x45\xdf\xa3', 'a Matroska or WebM file'],
  [4, 'ftyp', 'an MP4 file'],
  [0, '#!AMR', 'an AMR file'],
  [0, 'caff', 'a CAF file'],
  [0, '\x30\x26\xb2\x75\x8e\x66\xcf\x11', 'a Windows Media file'],
];
/** Sizes of the headers of bitmaps: two letters alone say little. */
const BITMAPS = ['\x0c\0\0\0', '\x28\0\0\0', '\x6c\0\0\0', '\x7c\0\0\0'];

export function kindOf(data: Uint8Array): Kind {
  const marked = markedKind(data);
  if (marked) return marked;
  const name = textKind(data.subarray(0, HEAD));
  return { name, sound: name === undefined };
}

function markedKind(data: Uint8Array): Kind | undefined {
  for (const [marks, sound] of [[NO_SOUNDS, false] as const, [SOUNDS, true] as const]) {
    const found = marks.find(([place, mark]) => isAt(data, place, mark));
    if (found) return { name: found[2], sound };
  }
  if (isAt(data, 0, 'BM') && BITMAPS.some((size) => isAt(data, 14, size)))
    return { name: 'a BMP image', sound: false };
  return undefined;
}

/** What kind of text it is; undefined where it is none. */
function textKind(head: Uint8Array): string | undefined {
  // Control characters, save those that text has.
  if (head.some((byte) => byte < 32 && ![9, 10, 12, 13, 27].includes(byte))) return undefined;
  let text: string;
  try {
    // A character may be cut in two at the end of the head.
    text = new TextDecoder('utf-8', { fatal: true }).decode(head, { stream: true });
  } catch {
    return undefined;
  }
  const start = text.trimStart().toLowerCase();
  if (/^(<!doctype html|<html)/.test(start)) return 'an HTML page';
  if (start.startsWith('<svg') || (/^(<\?xml|<!--)/.test(start) && start.includes('<svg')))
    return 'an SVG drawing';
  if (start.startsWith('<?xml')) return 'XML';
  if (/^[{[]/.test(start)) return 'JSON';
  if (start.startsWith('version https://git-lfs')) return 'a Git LFS pointer instead of the file';
  if (start.startsWith('data:')) return 'a data: URL';
  return isEncoded(text) ? 'base64 text, encoded twice' : 'text';
}

/** Whether text is a file in base64. */
function isEncoded(text: string): boolean {
  const packed = text.replace(/[ \r\n]/g, '');
  const whole = packed.slice(0, packed.length - (packed.length % 4));
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(whole)) return false;
  return markedKind(Uint8Array.from(atob(whole), (character) => character.charCodeAt(0))) !== undefined;
}
