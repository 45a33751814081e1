/** Holds values to a contract: its fields by the generated validators, its tensors by their shapes, its rules. */
import type * as z from 'zod';

import { BadResponseError } from './errors.js';
import { faultsOf, MAX_FAULTS, stopAtFirst } from './faults.js';
import { BINARY } from './generated/binary.gen.js';
import type { Fault } from './generated/types.gen.js';
import { NONE, plainPath, wirePointer, type Held, type Places } from './places.js';
import { breaches } from './rules.js';
import { fromWire, misfits } from './wire.js';

/** A contract: the name of its schema and the validator of the form that programs hold. */
export interface Contract<T> {
  name: string;
  schema: z.ZodType<T>;
}

/** Where a contract holds tensors and media. */
export function placesOf(contract: Contract<unknown>): Places {
  return BINARY[contract.name] ?? NONE;
}

/** What is wrong with a body as it is sent; nothing where the server would accept it. */
export function check(contract: Contract<unknown>, body: unknown): Fault[] {
  return inspect(contract, fromWire(body, placesOf(contract)));
}

/** What is wrong with a request in the form that programs hold, with the paths of the form on the wire. */
export function inspect(contract: Contract<unknown>, held: Held): Fault[] {
  const places = placesOf(contract);
  const parsed = contract.schema.safeParse(held.value);
  const found = parsed.success ? [] : faultsOf(parsed.error.issues, held.value);
  const faults = [...held.faults, ...found.map((fault) => onWire(fault, places))];
  if (faults.length > 0 || !parsed.success) return firstAtEachPath(inFirstItems(faults, held.value, places));
  const broken = breaches(contract.name, parsed.data as Record<string, unknown>);
  const later = [...misfits(parsed.data, places), ...broken.map((fault) => onWire(fault, places))];
  return inFirstItems(later, parsed.data, places);
}

/** The answer in the form that programs hold, where it keeps its contract; without members that this lacks. */
export function conform<A>(contract: Contract<A>, answer: unknown): A {
  return accept(contract, answer).data;
}

/** The same with the members that the contract lacks: events may carry more than this version knows. */
export function conformOpen<A extends object>(contract: Contract<A>, answer: object): A {
  const { value, data } = accept(contract, answer);
  return { ...(value as object), ...data };
}

function accept<A>(contract: Contract<A>, answer: unknown): { value: unknown; data: A } {
  try {
    return acceptNested(contract, answer);
  } catch (cause) {
    // The stack is full: no contract is so deep.
    if (cause instanceof RangeError) throw new BadResponseError('The answer is nested too deeply.', { cause });
    throw cause;
  }
}

function acceptNested<A>(contract: Contract<A>, answer: unknown): { value: unknown; data: A } {
  const places = placesOf(contract);
  const { value } = fromWire(answer, places);
  const parsed = contract.schema.safeParse(value);
  const [fault] = parsed.success
    ? misfits(parsed.data, places)
    : faultsOf(parsed.error.issues, value).map((fault) => onWire(fault, places));
  if (parsed.success && !fault) return { value, data: parsed.data };
  const place = fault?.path || '(body)';
  throw new BadResponseError(`The answer breaks ${contract.name} at ${place}: ${fault?.message}`);
}

function onWire(fault: Fault, places: Places): Fault {
  return { ...fault, path: wirePointer(fault.path, places) };
}

/** Faults of several checks, of each list those of its first wrong item. */
function inFirstItems(faults: Fault[], value: unknown, places: Places): Fault[] {
  const found = faults.map((fault) => ({ fault, code: fault.code, path: plainPath(fault.path, places) }));
  return stopAtFirst(found, value).map(({ fault }) => fault);
}

/** A value that could not be read is complained of by its validator too. */
function firstAtEachPath(faults: Fault[]): Fault[] {
  const paths = new Set<string>();
  return faults.filter(({ path }) => !paths.has(path) && paths.add(path)).slice(0, MAX_FAULTS);
}
