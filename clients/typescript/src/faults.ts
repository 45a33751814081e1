/**
 * Turns zod's issues into faults: the schema's codes and JSON Pointers into the body. Zod tells each branch
 * of a union apart; a caller wants the complaint of the branch that was meant.
 */
import type * as z from 'zod';

import type { Fault } from './generated/types.gen.js';

/** Most faults that are told; a long series of wrong numbers is one mistake. */
export const MAX_FAULTS = 20;

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];
type Found = Omit<Fault, 'path'> & { path: Path };

/** The faults of `body`, at most `MAX_FAULTS`, in the order of the contract's fields. */
export function faultsOf(issues: readonly Issue[], body: unknown): Fault[] {
  const faults = new Map<string, Fault>();
  for (const found of expand(issues, [], body)) {
    const path = pointer(found.path);
    // Zod goes on after a value's first complaint; one is enough.
    if (!faults.has(path)) faults.set(path, { ...found, path });
  }
  return [...faults.values()].slice(0, MAX_FAULTS);
}

/** JSON Pointer (RFC 6901) of a path. */
export function pointer(path: Path): string {
  return path.map((part) => '/' + String(part).replaceAll('~', '~0').replaceAll('/', '~1')).join('');
}

function expand(issues: readonly Issue[], root: Path, body: unknown): Found[] {
  return issues.flatMap((issue): Found[] => {
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
    return [{ code: codeOf(issue, path, body), path, message: messageOf(issue) }];
  });
}

/** Of the branches of one union, the one whose complaints lie deepest, then say more than "wrong type", then are fewest. */
function meant(branches: Found[][]): Found[] {
  const rank = (faults: Found[]) => [
    Math.max(...faults.map(({ path }) => path.length)),
    faults.some(({ code }) => code === 'wrong_type') ? 0 : 1,
    -faults.length,
  ];
  return branches.reduce((best, branch) => (exceeds(rank(branch), rank(best)) ? branch : best));
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
