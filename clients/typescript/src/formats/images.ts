/** The headers of PNG, JPEG and WebP, the formats that the contracts name for images. */
import { BrokenFile, cutOff, isAt, MOST_PARTS, readHeader, standsBehind, viewOf } from './broken.js';
import { kindOf } from './kinds.js';

type Size = readonly [width: number, height: number];

/** Bits of a sample that PNG has for each type of colour. */
const PNG_DEPTHS: Record<number, readonly number[]> = {
  0: [1, 2, 4, 8, 16],
  2: [8, 16],
  3: [1, 2, 4, 8],
  4: [8, 16],
  6: [8, 16],
};

/** Throws `BrokenFile` for another kind of file, one that ends too early or one without pixels. */
export function lookAtImage(data: Uint8Array): void {
  let name: string;
  let read: (data: Uint8Array, view: DataView) => Size;
  if (isAt(data, 0, '\x89PNG\r\n\x1a\n')) [name, read] = ['PNG', png];
  else if (isAt(data, 0, '\xff\xd8\xff')) [name, read] = ['JPEG', jpeg];
  else if (isAt(data, 0, 'RIFF') && isAt(data, 8, 'WEBP')) [name, read] = ['WebP', webp];
  else {
    const what = kindOf(data).name;
    throw new BrokenFile(`Must be a PNG, JPEG or WebP file${what ? `; this is ${what}` : ''}.`);
  }
  const [width, height] = readHeader(name, () => read(data, viewOf(data)));
  if (!width || !height) throw new BrokenFile(`The ${name} file's header says that it has no pixels.`);
}

function png(data: Uint8Array, view: DataView): Size {
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [depth, colour] = [view.getUint8(24), view.getUint8(25)];
  if (!isAt(data, 8, '\0\0\0\rIHDR') || !PNG_DEPTHS[colour]?.includes(depth))
    throw new BrokenFile("The PNG file's header is broken.");
  if (Math.max(width, height) >= 2 ** 31)
    throw new BrokenFile(
      `The PNG file's header says ${width} x ${height} pixels, more than can be.`,
    );
  let place = 33;
  for (let part = 0; part < MOST_PARTS; part++) {
    const kind = letters(view, place + 4);
    place += 12 + view.getUint32(place);
    if (kind === 'IEND' || !/^[A-Za-z]{4}$/.test(kind)) break;
    // Decoders differ in which of two they take.
    if (kind === 'IHDR') throw new BrokenFile('The PNG file has two headers.');
    if (place > data.length || (kind === 'IDAT' && !standsBehind(data, 'IEND', place)))
      throw cutOff('PNG', 'before its end');
    if (kind === 'IDAT') return [width, height];
  }
  throw new BrokenFile('The PNG file has no pixels behind its header.');
}

function jpeg(data: Uint8Array, view: DataView): Size {
  let place = 2;
  let size: Size | undefined;
  for (let part = 0; part < MOST_PARTS; part++) {
    // Decoders pass over what stands between two segments.
    place = data.indexOf(0xff, place);
    const marker = view.getUint8(place < 0 ? data.length : place + 1);
    if (marker === 0xff)
      place += 1; // padding
    else if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8))
      place += 2; // no length follows
    else if (marker === 0xd9) break;
    // Reserved, or of images within images: some decoders stop there, and some find sizes within.
    else if (marker < 0xc0 || [0xc8, 0xde, 0xdf].includes(marker) || (marker >= 0xf0 && marker <= 0xfd))
      throw new BrokenFile("The JPEG file's header is broken.");
    else if (marker === 0xda) {
      if (!size) break;
      if (!standsBehind(data, '\xff\xd9', place)) throw cutOff('JPEG', 'before its end');
      return size;
    } else {
      const length = view.getUint16(place + 2);
      if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xcc].includes(marker)) {
        if (size) throw new BrokenFile('The JPEG file states its size twice.'); // as above
        size = [view.getUint16(place + 7), view.getUint16(place + 5)];
      }
      place += 2 + Math.max(2, length);
    }
  }
  throw new BrokenFile('The JPEG file has no pixels behind its header.');
}

function webp(data: Uint8Array, view: DataView): Size {
  const whole = view.getUint32(4, true) + 8;
  const size = webpSize(data, view);
  // The last part may lack the byte that makes its length even.
  if (whole > data.length + 1) throw cutOff('WebP', 'before its end');
  let place = 12;
  for (let part = 0; part < MOST_PARTS; part++) {
    const kind = letters(view, place);
    const length = view.getUint32(place + 4, true);
    place += 8 + length;
    if (['VP8 ', 'VP8L', 'ANMF'].includes(kind)) {
      if (place > data.length) throw cutOff('WebP', 'before its end');
      return size;
    }
    place += length % 2;
  }
  throw new BrokenFile('The WebP file has no pixels behind its header.');
}

function webpSize(data: Uint8Array, view: DataView): Size {
  const kind = letters(view, 12);
  if (kind === 'VP8X') {
    const three = (place: number) => view.getUint16(place, true) | (view.getUint8(place + 2) << 16);
    return [1 + three(24), 1 + three(27)];
  }
  if (kind === 'VP8L') {
    const bits = view.getUint32(21, true);
    if (data[20] === 0x2f) return [1 + (bits & 0x3fff), 1 + ((bits >> 14) & 0x3fff)];
  } else if (kind === 'VP8 ') {
    const size: Size = [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
    if (isAt(data, 23, '\x9d\x01\x2a')) return size;
  }
  throw new BrokenFile("The WebP file's header is broken.");
}

function letters(view: DataView, place: number): string {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(place + i)));
}
