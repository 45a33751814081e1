/** The cases that the Python contracts pass too: the same body gets the same codes and paths. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { check } from '../src/contract.js';
import { OPERATIONS } from '../src/generated/resources.gen.js';
import { RULES } from '../src/generated/rules.gen.js';

interface Case {
  title: string;
  request?: unknown;
  /** A body as text, where JSON.stringify could not write it. */
  raw?: string;
  errors?: { code: string; path: string }[];
}

const CASES = new URL('../../../schema/cases/', import.meta.url);

function cases(modelType: string, kind: string): [name: string, body: unknown, faults: string[]][] {
  const folder = new URL(`${modelType}/${kind}/`, CASES);
  return readdirSync(folder).map((file) => {
    const found = JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Case;
    const body: unknown = found.raw === undefined ? found.request : JSON.parse(found.raw);
    return [`${kind}/${file}`, body, (found.errors ?? []).map(({ code, path }) => `${code} ${path}`).sort()];
  });
}

for (const operation of OPERATIONS) {
  const name = 'operation' in operation ? `${operation.modelType}.${operation.operation}` : operation.modelType;
  describe(name, () => {
    const all = [...cases(name, 'valid'), ...cases(name, 'invalid')];
    for (const [name, body, expected] of all) {
      test(name, () => {
        const found = check(operation.request, body).map(({ code, path }) => `${code} ${path}`);
        assert.deepEqual(found.sort(), expected);
      });
    }

    test('every rule is broken by some case', () => {
      const codes = new Set(all.flatMap(([, , faults]) => faults.map((fault) => fault.split(' ')[0])));
      assert.deepEqual(RULES[operation.request.name]?.filter(({ rule }) => !codes.has(rule)) ?? [], []);
    });
  });
}
