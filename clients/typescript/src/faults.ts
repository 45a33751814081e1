/**
 * Turns zod's issues into faults: the schema's codes and JSON Pointers into the body. Zod tells each branch
 * of a union apart; a caller wants the complaint of the branch that was meant.
 */
import type * as z from 'zod';

import type { Fault } from './generated/types.gen.js';

/** Most faults that are told. */
export const MAX_FAULTS = 20;

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];
/** A complaint; of a list that is too long, with the most that it may have. */
type Found = Omit<Fault, 'path'> & { path: Path; most?: number };

/** The faults of `body`, at most `MAX_FAULTS`, in the order of the contract's fields. */
export function faultsOf(issues: readonly Issue[], body: unknown): Fault[] {
  const faults = new Map<string, Fault>();
  for (const { code, path: place, message } of expand(issues, [], body)) {
    const path = pointer(place);
    // Zod goes on after a value's first complaint; one is enough.
    if (!faults.has(path)) faults.set(path, { code, path, message });
  }
  return [...faults.values()].slice(0, MAX_FAULTS);
}

/** JSON Pointer (RFC 6901) of a path. */
export function pointer(path: Path): string {
  return path.map((part) => '/' + String(part).replaceAll('~', '~0').replaceAll('/', '~1')).join('');
}

function expand(issues: readonly Issue[], root: Path, body: unknown): Found[] {
  const all = issues.flatMap((issue): Found[] => {
    const path = [...root, ...issue.path];
    if (issue.code === 'invalid_union' && issue.errors.length > 0) {
      return meant(issue.errors.map((branch) => expand(branch, path, body)));
    }
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        code: 'unknown_field',
        path: [...path, key],
        message: 'No such member.',
      }));
    }
    const most = issue.code === 'too_big' ? { most: Number(issue.maximum) } : {};
    return [{ code: codeOf(issue, path, body), path, message: messageOf(issue), ...most }];
  });
  return stopAtFirst(all, body);
}

/** The complaints up to the first wrong item of each list, where Python's contracts stop; zod tells all of them. */
export function stopAtFirst<F extends Pick<Found, 'code' | 'path' | 'most'>>(all: F[], body: unknown): F[] {
  const first = new Map<string, number>();
  const ways = all.map(({ path, code, most }) => {
    const way = [...listsOn(path, body)];
    if (most !== undefined && code === 'too_long' && Array.isArray(valueAt(body, path)))
      way.push([pointer(path), most]);
    for (const [list, index] of way) first.set(list, Math.min(index, first.get(list) ?? index));
    return way;
  });
  return all.filter((_, i) => ways[i]!.every(([list, index]) => first.get(list) === index));
}

/** The lists on a path into the body, with the place of the item in each. */
function* listsOn(path: Path, body: unknown): Generator<[list: string, index: number]> {
  let here = body;
  for (const [depth, part] of path.entries()) {
    if (Array.isArray(here)) yield [pointer(path.slice(0, depth)), Number(part)];
    here = (here as Record<PropertyKey, unknown> | undefined | null)?.[part];
  }
}

/**
 * Of the branches of one union, the one whose complaints lie deepest, then say more than "wrong type", then
 * that got furthest in its lists, then with the fewest.
 */
function meant(branches: Found[][]): Found[] {
  return branches.reduce((best, branch) => (exceeds(rank(branch), rank(best)) ? branch : best));
}

function rank(faults: Found[]): number[] {
  // A list is too long where it had as many right items as it may have: it got further than to any of them.
  const ways = faults.map(({ code, path }) => (code === 'too_long' ? [...path, Infinity] : path));
  const depth = Math.max(...ways.map((way) => way.length));
  const steps = Array.from({ length: depth }, (_, i) => {
    const step = ways[0]![i];
    return typeof step === 'number' ? step : -1;
  });
  return [depth, faults.some(({ code }) => code === 'wrong_type') ? 0 : 1, ...steps, -faults.length];
}

function exceeds(a: number[], b: number[]): boolean {
  const place = a.findIndex((value, i) => value !== b[i]);
  return place >= 0 && a[place]! > b[place]!;
}

function codeOf(issue: Issue, path: Path, body: unknown): string {
  const number = 'origin' in issue && (issue.origin === 'number' || issue.origin === 'int');
  switch (issue.code) {
    case 'too_small':
      return number ? 'out_of_range' : 'too_short';
    case 'too_big':
      return number ? 'out_of_range' : 'too_long';
    case 'not_multiple_of':
      return 'out_of_range';
    case 'invalid_format':
      return 'bad_format';
  }
  const value = valueAt(body, path);
  if (value === undefined && !isElement(body, path)) return 'missing';
  if (issue.code === 'invalid_value') return 'not_allowed';
  return typeof value === 'number' && !Number.isFinite(value) ? 'not_finite' : 'wrong_type';
}

function valueAt(body: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (here, part) => (here as Record<PropertyKey, unknown> | undefined)?.[part],
    body,
  );
}

function isElement(body: unknown, path: Path): boolean {
  return path.length === 0 || Array.isArray(valueAt(body, path.slice(0, -1)));
}

function messageOf(issue: Issue): string {
  if (issue.code === 'invalid_format' && issue.format === 'guid') return 'Must be a UUID.';
  return issue.message.endsWith('.') ? issue.message : `${issue.message}.`;
}
