/**
 * Where a contract holds tensors and media. The wire calls a member `positions_b64` that programs call
 * `positions`; the tree of places, made from the schema, leads from one form to the other.
 */
import { pointer } from './faults.js';
import type { Fault } from './generated/types.gen.js';

// A typed array has the byte order of its machine and the wire is little-endian: JavaScript runs on no others.
export const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
} as const;

export type Dtype = keyof typeof ARRAYS;
export type ArrayOf<D extends Dtype> = InstanceType<(typeof ARRAYS)[D]>;

/** A tensor, its shape in numbers and in fields beside it. */
export interface Tensor {
  readonly $tensor: Dtype;
  readonly $shape: readonly (number | string)[];
  /** Whether NaN stands for missing values. */
  readonly $missing?: boolean;
}
/** An encoded file. */
export interface Media {
  readonly $media: string;
}
export type Binary = Tensor | Media;
/** Members by the names of the wire, or `*` for all of them. */
export interface Places {
  readonly [member: string]: Places | Binary;
}
export type Path = readonly (string | number)[];

/** A value in the form that programs hold, the bytes in it, and what could not be brought into this form. */
export interface Held {
  value: unknown;
  bytes: number;
  faults: Fault[];
}

/** The place of everything that holds neither tensors nor media. */
export const NONE: Places = {};
const SUFFIX = '_b64';

export function isBinary(place: Places | Binary): place is Binary {
  return '$tensor' in place || '$media' in place;
}

/** The place of a member by its name on the wire, or of an item. */
export function below(places: Places, member: string): Places | Binary {
  return (Object.hasOwn(places, member) ? places[member] : places['*']) ?? NONE;
}

/** The name on the wire of a member that programs call `name`. */
export function wireName(places: Places, name: string): string {
  return Object.hasOwn(places, name + SUFFIX) ? name + SUFFIX : name;
}

/** The name that programs use of a member that the wire calls `name`. */
export function plainName(places: Places, name: string): string {
  return Object.hasOwn(places, name) && name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : name;
}

/** A JSON Pointer into the form that programs hold, as one into the form on the wire. */
export function wirePointer(path: string, tree: Places): string {
  let places: Places | Binary = tree;
  const names = path.split('/').slice(1);
  const wire = names.map((name) => {
    if (isBinary(places)) return name;
    const found = wireName(places, name);
    places = below(places, found);
    return found;
  });
  return wire.map((name) => `/${name}`).join('');
}

/** A JSON Pointer into the form on the wire, as a path into the form that programs hold. */
export function plainPath(path: string, tree: Places): string[] {
  let places: Places | Binary = tree;
  const names = path.split('/').slice(1);
  return names.map((escaped) => {
    const name = escaped.replaceAll('~1', '/').replaceAll('~0', '~');
    if (isBinary(places)) return name;
    const found = plainName(places, name);
    places = below(places, name);
    return found;
  });
}

/** Whether a value is the typed array of a dtype, of whatever realm. */
export function isArrayOf<D extends Dtype>(value: unknown, dtype: D): value is ArrayOf<D> {
  return Object.prototype.toString.call(value) === `[object ${ARRAYS[dtype].name}]`;
}

export function isBytes(value: unknown): value is Uint8Array<ArrayBuffer> {
  return isArrayOf(value, 'uint8');
}

/** The array that some bytes are; the bytes themselves where they are no whole number of items. */
export function arrayFrom(bytes: Uint8Array<ArrayBuffer>, binary: Binary): ArrayBufferView {
  if ('$media' in binary || binary.$tensor === 'uint8') return bytes;
  const kind = ARRAYS[binary.$tensor];
  if (bytes.byteLength % kind.BYTES_PER_ELEMENT !== 0) return bytes;
  return new kind(bytes.slice().buffer); // a view of the same memory need not be aligned
}

export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

export function fault(code: string, path: Path, message: string): Fault {
  return { code, path: pointer(path), message };
}
