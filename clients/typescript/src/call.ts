/**
 * Requests as callers write them: `model` for the deployed model, typed arrays for lists of numbers, dates for
 * times, arrays and files for tensors and media, or their base64 text under the name of the wire.
 */
import { fromBase64 } from './base64.js';
import { SheafError } from './errors.js';
import type { BaseRequest } from './generated/types.gen.js';
import {
  ARRAYS,
  arrayFrom,
  below,
  fault,
  isArrayOf,
  isBinary,
  isBytes,
  NONE,
  plainName,
  wireName,
  type Binary,
  type Held,
  type Path,
  type Places,
} from './places.js';

/** An array of numbers in any of the forms that JavaScript has for it. */
export type NumberArray =
  Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array;

/** A tensor or an encoded file. */
type Bytes = Float32Array | Float64Array | Uint8Array | Int32Array | BigInt64Array | ArrayBuffer | Blob;
type InLists<T> = T extends (infer Item)[] ? InLists<Item> : T;

/** The members that hold tensors or media, alone or in lists; mappings of them have no other name on the wire. */
type BinaryKey<T> = {
  [Key in keyof T]-?: [InLists<NonNullable<T[Key]>>] extends [Bytes] ? Key : never;
}[keyof T];

type WireName<Key> = `${Key & string}_b64`;
type Text<T> = T extends Bytes ? string : T extends (infer Item)[] ? Text<Item>[] : T;
type Without<Key extends PropertyKey> = { [Name in Key]?: never };

/** A member as arrays under its plain name, or as base64 text under its name on the wire. */
type Either<T, Key extends keyof T> =
  | (Pick<T, Key> & Without<WireName<Key>>)
  | ({ [Name in keyof Pick<T, Key> as WireName<Name>]: Text<T[Name]> } & Without<Key>);

/** The choice for each member, all of them at once. */
type Eithers<T, Key extends keyof T> = (
  Key extends unknown ? (member: Either<T, Key>) => void : never
) extends (member: infer Members) => void
  ? Members
  : never;

/** A contract's type as callers may write its values. */
export type ValueInput<T> = T extends Bytes
  ? T | string
  : T extends Date
    ? T
    : T extends (infer Item)[]
      ? ValueInput<Item>[] | (number extends Item ? NumberArray : never)
      : T extends object
        ? MembersInput<T>
        : T;

type MembersInput<T> = string extends keyof T
  ? { [Key in keyof T]: ValueInput<T[Key]> }
  : { [Key in keyof T as Exclude<Key, BinaryKey<T>>]: ValueInput<T[Key]> } & Eithers<T, BinaryKey<T>>;

/** A request as a caller writes it: `model` names the deployed model, the client fills in the rest. */
export type RequestInput<Q extends BaseRequest> = ValueInput<Omit<Q, Constant | 'model_name'>> & Partial<
  Pick<Q, Constant & keyof Q>
> & {
  /** Name of the deployed model; the client's `model` when absent. */
  model?: string | undefined;
  model_name?: Q['model_name'];
};

/** What an operation says of itself in each of its requests. */
type Constant = 'model_type' | 'operation';

/**
 * A call's members in the form that programs hold, ready to be checked: arrays for typed arrays of numbers,
 * `null` for a NaN in the fields `gaps`, text for dates, bytes for files.
 */
export async function fromCall(fields: object, tree: Places, gaps: readonly string[]): Promise<Held> {
  const files: Files = new Map();
  const held = new Reading(gaps, files).run(fields, tree);
  if (files.size === 0) return held;
  for (const file of files.keys()) files.set(file, await bytesOfFile(file));
  return new Reading(gaps, files).run(fields, tree);
}

/** What the blobs of a call hold, once they are read. */
type Files = Map<Blob, Uint8Array<ArrayBuffer> | undefined>;
/** Which forms a tensor or file may have under the name that it stands under. */
type Form = 'array' | 'text' | 'any';

async function bytesOfFile(file: Blob): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch (cause) {
    throw new SheafError('A file of the request cannot be read.', { cause });
  }
}

class Reading {
  readonly #held: Held = { value: undefined, bytes: 0, faults: [] };

  constructor(
    private readonly gaps: readonly string[],
    private readonly files: Files,
  ) {}

  run(fields: object, tree: Places): Held {
    this.#held.value = this.#members(fields, tree, [], (name) => this.gaps.includes(name));
    return this.#held;
  }

  #members(value: object, places: Places, path: Path, gaps: (name: string) => boolean): object {
    const members = new Map<string, unknown>();
    for (const [given, member] of Object.entries(value)) {
      if (member === undefined) continue;
      const wire = Object.hasOwn(places, given) ? given : wireName(places, given);
      const plain = plainName(places, wire);
      const here = [...path, wire];
      if ((members.get(plain) ?? null) !== null) {
        if (member !== null) this.#fault('at_most_one_of', here, `Give ${plain} or ${wire}, not both.`);
        continue;
      }
      const form = wire === plain ? 'any' : given === wire ? 'text' : 'array';
      members.set(plain, this.#value(member, below(places, wire), here, gaps(given), form));
    }
    return Object.fromEntries(members);
  }

  #value(value: unknown, places: Places | Binary, path: Path, gaps: boolean, form: Form): unknown {
    if (value === null) return value;
    if (isBinary(places)) return this.#binary(value, places, path, form);
    if (typeof value === 'number') return gaps && Number.isNaN(value) ? null : value;
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      return this.#value(Array.from(value as unknown as ArrayLike<unknown>), places, path, gaps, form);
    }
    if (Array.isArray(value)) {
      const inner = below(places, '*');
      return value.map((item, i) =>
        this.#value(item, inner, inner === NONE ? path : [...path, i], gaps, form),
      );
    }
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? value : value.toISOString();
    if (typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype) return value;
    return this.#members(value, places, path, () => gaps);
  }

  #binary(value: unknown, binary: Binary, path: Path, form: Form): unknown {
    if (typeof value === 'string' && form !== 'array') {
      const bytes = fromBase64(value);
      if (bytes) return this.#count(arrayFrom(bytes, binary));
      this.#fault('bad_format', path, 'Must be base64 text.');
      return value;
    }
    const array = form === 'text' ? undefined : this.#array(value, binary);
    if (array) return this.#count(array);
    const arrays =
      '$media' in binary ? 'a Uint8Array, an ArrayBuffer or a Blob' : `a ${ARRAYS[binary.$tensor].name}`;
    const expected = { array: arrays, text: 'base64 text', any: `${arrays} or base64 text` }[form];
    this.#fault('wrong_type', path, `Must be ${expected}.`);
    return value;
  }

  #array(value: unknown, binary: Binary): ArrayBufferView | undefined {
    if ('$tensor' in binary) return isArrayOf(value, binary.$tensor) ? value : undefined;
    if (value instanceof Blob) {
      const bytes = this.files.get(value);
      if (!bytes) this.files.set(value, undefined);
      return bytes ?? new Uint8Array(0);
    }
    return isBytes(value) ? value : value instanceof ArrayBuffer ? new Uint8Array(value) : undefined;
  }

  #count<A extends ArrayBufferView>(array: A): A {
    this.#held.bytes += array.byteLength;
    return array;
  }

  #fault(code: string, path: Path, message: string): void {
    this.#held.faults.push(fault(code, path, message));
  }
}
