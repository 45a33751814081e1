/** Leads contracts from their form on the wire to the form that programs hold, and back. */
import { fromBase64, toBase64 } from './base64.js';
import type { Fault } from './generated/types.gen.js';
import {
  ARRAYS,
  arrayFrom,
  below,
  bytesOf,
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

type Members = Record<string, unknown>;

/** The value in a body or an answer: base64 text or raw bytes become arrays and files under their plain names. */
export function fromWire(wire: unknown, tree: Places): Held {
  const held: Held = { value: wire, bytes: 0, faults: [] };
  held.value = read(wire, tree, []);
  return held;

  function read(value: unknown, places: Places | Binary, path: Path): unknown {
    if (places === NONE || (value ?? null) === null) return value;
    if (isBinary(places)) return open(value, places, path);
    if (Array.isArray(value)) return value.map((item, i) => read(item, below(places, '*'), [...path, i]));
    if (typeof value !== 'object') return value;
    const members: [string, unknown][] = [];
    for (const [name, member] of Object.entries(value as Members)) {
      if (wireName(places, name) !== name) {
        held.faults.push(fault('unknown_field', [...path, name], 'No such member.'));
      } else {
        members.push([plainName(places, name), read(member, below(places, name), [...path, name])]);
      }
    }
    return Object.fromEntries(members);
  }

  function open(value: unknown, binary: Binary, path: Path): unknown {
    const bytes = typeof value === 'string' ? fromBase64(value) : isBytes(value) ? value : undefined;
    if (!bytes) {
      const [code, message] =
        typeof value === 'string'
          ? ['bad_format', 'Must be base64 text.']
          : ['wrong_type', 'Must be base64 text or bytes.'];
      held.faults.push(fault(code!, path, message!));
      return value;
    }
    held.bytes += bytes.byteLength;
    return arrayFrom(bytes, binary);
  }
}

/** The form on the wire of what a program holds: base64 text, or raw bytes where the body is to be MessagePack. */
export function toWire(value: unknown, places: Places | Binary, raw: boolean): unknown {
  if (places === NONE || typeof value !== 'object' || value === null) return value;
  if (isBinary(places)) {
    const bytes = bytesOf(value as ArrayBufferView);
    return raw ? bytes : toBase64(bytes);
  }
  if (Array.isArray(value)) return value.map((item) => toWire(item, below(places, '*'), raw));
  const members = Object.entries(value).map(([name, member]) => {
    const wire = wireName(places, name);
    return [wire, toWire(member, below(places, wire), raw)] as const;
  });
  return Object.fromEntries(members);
}

/** The tensors of an otherwise valid value whose bytes are not those of their shape, or whose numbers are none. */
export function* misfits(
  value: unknown,
  places: Places | Binary,
  owner: Members = {},
  path: Path = [],
): Generator<Fault> {
  if (places === NONE || typeof value !== 'object' || value === null) return;
  if (isBinary(places)) {
    const found = misfit(value as ArrayBufferView, places, owner);
    if (found) yield fault(found[0], path, found[1]);
    return;
  }
  const list = Array.isArray(value);
  for (const [key, member] of Object.entries(value as Members)) {
    const wire = list ? '*' : wireName(places, key);
    const named = !list && Object.hasOwn(places, wire);
    yield* misfits(member, below(places, wire), named ? (value as Members) : owner, [
      ...path,
      list ? key : wire,
    ]);
  }
}

function misfit(array: ArrayBufferView, binary: Binary, owner: Members): [string, string] | undefined {
  if ('$media' in binary) return undefined;
  const { $tensor: dtype, $shape } = binary;
  const shape = $shape.map((size) => (typeof size === 'number' ? size : sizeOf(size, owner)));
  // Where a size is not known, a rule of its own tells of the field that is missing.
  if (shape.includes(undefined)) return undefined;
  const sizes = shape as number[];
  const expected = sizes.reduce((product, size) => product * size, ARRAYS[dtype].BYTES_PER_ELEMENT);
  if (!isArrayOf(array, dtype) || array.byteLength !== expected) {
    const message = `Must hold ${expected} bytes, shape (${sizes.join(', ')}) of ${dtype}; ${array.byteLength} given.`;
    return ['bytes_match_shape', message];
  }
  const numbers = isArrayOf(array, 'float32') || isArrayOf(array, 'float64') ? array : [];
  for (const number of numbers) {
    if (Number.isFinite(number) || (binary.$missing && Number.isNaN(number))) continue;
    const or = binary.$missing ? ', or NaN for missing ones' : ' alone';
    return ['not_finite', `Must hold finite numbers${or}.`];
  }
  return undefined;
}

/** The number in a field, or the length of `len(field)`. */
function sizeOf(size: string, owner: Members): number | undefined {
  const [, field] = /^len\((.*)\)$/.exec(size) ?? [];
  const value = owner[field ?? size] ?? undefined;
  return field === undefined ? (value as number | undefined) : (value as unknown[] | undefined)?.length;
}
