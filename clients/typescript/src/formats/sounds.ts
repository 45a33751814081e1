/**
 * The headers of sound files, and of the containers that hold sound. Any container may come: one that is not
 * known here is for the server to read or refuse. Ogg and MP3 are streams, which may end anywhere.
 */
import { BrokenFile, cutOff, isAt, MOST_PARTS, readHeader, viewOf } from './broken.js';
import { kindOf } from './kinds.js';

/** Lengths of 32 bits from here on say that the writer did not know: it wrote into a pipe. */
const UNKNOWN = 0x7f000000;
/** No sound is in fewer bytes: the headers alone are longer. */
const SHORTEST = 16;

type Reader = (data: Uint8Array, view: DataView, start: number) => void;

/** The name of a format, its mark, where that stands, and what reads the header. */
const READERS: readonly (readonly [name: string, mark: string, place: number, read: Reader])[] = [
  ['WAV', 'WAVE', 8, wav],
  ['FLAC', 'fLaC', 0, flac],
  ['Ogg', 'OggS', 0, ogg],
  ['Matroska', '\x1a\x45\xdf\xa3', 0, matroska],
  ['MP4', 'ftyp', 4, mp4],
  ['AIFF', 'AIF', 8, (data, view, start) => whole('AIFF', data, start + 8, view.getUint32(start + 4))],
  ['AVI', 'AVI ', 8, (data, view, start) => whole('AVI', data, start + 8, view.getUint32(start + 4, true))],
  ['AU', '.snd', 0, au],
];

/** Throws `BrokenFile` for what is no sound, or ends too early. */
export function lookAtSound(data: Uint8Array): void {
  const { name: what, sound } = kindOf(data);
  if (!sound)
    throw new BrokenFile(`Must be a sound file, such as WAV, FLAC, MP3 or Ogg; this is ${what}.`);
  if (data.length < SHORTEST) throw cutOff('sound', `after ${data.length} bytes`);
  const start = tagEnd(data);
  const found = READERS.find(([, mark, place]) => isAt(data, start + place, mark));
  if (found) {
    const [name, , , read] = found;
    readHeader(name, () => read(data, viewOf(data), start));
  } else if (start + frameLength(data.subarray(start, start + 6)) > data.length) {
    throw cutOff('sound', 'in its first frame');
  }
}

/** Where the sound begins behind the tags that MP3 files, and some others, begin with. */
function tagEnd(data: Uint8Array): number {
  let start = 0;
  while (isAt(data, start, 'ID3')) {
    if (start + 10 > data.length) throw cutOff('MP3', 'in its tag');
    let length = 0;
    for (const byte of data.subarray(start + 6, start + 10)) length = (length << 7) | (byte & 0x7f);
    start += 10 + length + (data[start + 5]! & 0x10 ? 10 : 0);
    if (start >= data.length) throw cutOff('MP3', 'in its tag');
  }
  return start;
}

function wav(data: Uint8Array, view: DataView, start: number): void {
  let place = start + 12;
  let frame = 0;
  for (let part = 0; part < MOST_PARTS; part++) {
    const size = view.getUint32(place + 4, true);
    if (isAt(data, place, 'fmt ')) {
      const [channels, rate] = [view.getUint16(place + 10, true), view.getUint32(place + 12, true)];
      const bits = view.getUint16(place + 22, true);
      if (!channels || !rate)
        throw new BrokenFile("The WAV file's header states no channels or no sample rate.");
      // Of packed formats the header says no bits; a byte is the least a frame can be taken for.
      frame = Math.max(1, Math.floor((channels * bits) / 8));
    } else if (isAt(data, place, 'data')) {
      if (!frame) break;
      const there = data.length - place - 8;
      if (size < UNKNOWN && size > there) throw cutOff('WAV', `${size - there} bytes before its end`);
      if ((size === 0 || size >= UNKNOWN ? there : size) < frame) break;
      return;
    }
    place += 8 + size + (size % 2);
  }
  throw new BrokenFile('The WAV file has no sound behind its header.');
}

function flac(data: Uint8Array, view: DataView, start: number): void {
  if (view.getUint8(start + 4) & 0x7f || !isAt(data, start + 5, '\0\0\x22'))
    throw new BrokenFile("The FLAC file's header is broken.");
  if (!(view.getBigUint64(start + 18) >> 44n))
    throw new BrokenFile("The FLAC file's header states no sample rate.");
  let place = start + 4;
  for (let part = 0; part < MOST_PARTS; part++) {
    const head = view.getUint32(place);
    place += 4 + (head & 0xffffff);
    if (place > data.length) break;
    if (head >>> 31) {
      if (hasFrame(data, place)) return;
      throw new BrokenFile('The FLAC file has no sound behind its header.');
    }
  }
  throw cutOff('FLAC', 'in its header');
}

/** Whether a frame of FLAC begins at a place or behind it. */
function hasFrame(data: Uint8Array, from: number): boolean {
  for (let at = data.indexOf(0xff, from); at >= 0; at = data.indexOf(0xff, at + 1))
    if ((data[at + 1]! & 0xfe) === 0xf8) return true;
  return false;
}

function au(data: Uint8Array, view: DataView, start: number): void {
  const [offset, size, rate, channels] = [4, 8, 16, 20].map((place) => view.getUint32(start + place)) as [
    number,
    number,
    number,
    number,
  ];
  if (!rate || !channels)
    throw new BrokenFile("The AU file's header states no channels or no sample rate.");
  whole('AU', data, start + offset, size);
}

/** Refuse a file whose part of `size` bytes at `place` is longer than what is left. */
function whole(name: string, data: Uint8Array, place: number, size: number): void {
  // The last part may lack the byte that makes its length even.
  if (size > 0 && size < UNKNOWN && place + size > data.length + 1) throw cutOff(name, 'before its end');
}

function ogg(data: Uint8Array, view: DataView, start: number): void {
  const count = view.getUint8(start + 26);
  const lengths = data.subarray(start + 27, start + 27 + count);
  const end = lengths.reduce((sum, length) => sum + length, start + 27 + count);
  if (lengths.length < count || end > data.length) throw cutOff('Ogg', 'in its first page');
}

function matroska(data: Uint8Array, view: DataView, start: number): void {
  let { number, end } = ebmlNumber(data, view, start + 4);
  let place = end + number;
  while (view.getUint8(place) === 0xec) {
    // a gap
    ({ number, end } = ebmlNumber(data, view, place + 1));
    place = end + number;
  }
  if (!isAt(data, place, '\x18\x53\x80\x67')) {
    if (place + 4 > data.length) throw cutOff('Matroska', 'in its header');
    throw new BrokenFile('The Matroska file has nothing behind its header.');
  }
  const length = ebmlNumber(data, view, place + 4);
  const known = length.number !== 2 ** (7 * (length.end - place - 4)) - 1;
  if (known && length.end + length.number > data.length) throw cutOff('Matroska', 'before its end');
}

/** A number whose first bits say how long it is, and where it ends. */
function ebmlNumber(data: Uint8Array, view: DataView, place: number): { number: number; end: number } {
  const width = Math.clz32(view.getUint8(place)) - 23;
  if (width > 8) throw new BrokenFile("The Matroska file's header is broken.");
  if (place + width > data.length) throw new RangeError();
  let number = view.getUint8(place) & (0xff >> width);
  for (let i = 1; i < width; i++) number = number * 256 + view.getUint8(place + i);
  return { number, end: place + width };
}

/** The parts that stand beside each other in MP4 files. */
const MP4_PARTS =
  'ftyp styp moov mdat moof mfra free skip wide meta uuid sidx ssix emsg prft pdin udta'.split(' ');

function mp4(data: Uint8Array, view: DataView, start: number): void {
  let place = start;
  let described = false;
  for (let part = 0; part < MOST_PARTS; part++) {
    let size = view.getUint32(place);
    let least = 8;
    view.getUint32(place + 4); // the name is there
    if (size === 1) {
      size = Number(view.getBigUint64(place + 8));
      least = 16;
    }
    described ||= isAt(data, place + 4, 'moov');
    if (size === 0) break; // to the end
    const known = MP4_PARTS.some((name) => isAt(data, place + 4, name));
    if (size < least || (described && !known)) break; // what others wrote behind the last part
    place += size;
    if (place > data.length) throw cutOff('MP4', 'before its end');
    if (place + 8 > data.length) break;
  }
  if (!described)
    throw new BrokenFile('The MP4 file lacks the part that says what is in it; it may be cut off.');
}

/** Of MPEG sound: kbit/s by number, of version 1 by layer, then of versions 2 and 2.5. */
const RATES = {
  first: [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  ],
  second: [
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
  ],
};
/** Hz by the bits of the version. */
const HERTZ: Record<number, readonly number[]> = {
  3: [44100, 48000, 32000],
  2: [22050, 24000, 16000],
  0: [11025, 12000, 8000],
};

/** Bytes of the frame of MP3 or AAC that begins so; 0 where none does, or where it does not say. */
function frameLength(head: Uint8Array): number {
  const [sync, flags, rates, third, fourth, fifth] = head as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  if (head.length < 6 || sync !== 0xff || (flags & 0xe0) !== 0xe0) return 0;
  const version = (flags >> 3) & 3;
  const layer = 4 - ((flags >> 1) & 3);
  // AAC in ADTS, which has twelve bits of ones.
  if (layer === 4) return (flags & 0xf0) === 0xf0 ? ((third & 3) << 11) | (fourth << 3) | (fifth >> 5) : 0;
  const [number, rate, padding] = [rates >> 4, (rates >> 2) & 3, (rates >> 1) & 1];
  if (version === 1 || rate === 3 || number === 0 || number === 15) return 0;
  const first = version === 3;
  const table = first ? RATES.first[layer - 1]! : RATES.second[Math.min(layer, 2) - 1]!;
  const bits = 1000 * table[number - 1]!;
  const hertz = HERTZ[version]![rate]!;
  if (layer === 1) return (Math.floor((12 * bits) / hertz) + padding) * 4;
  return Math.floor(((!first && layer === 3 ? 72 : 144) * bits) / hertz) + padding;
}
