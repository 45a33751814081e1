/** When the client tries again: the cases that the Python client passes too. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { ConnectionFailedError, type SheafError } from '../src/errors.js';
import { BY_CODE } from '../src/generated/errors.gen.js';
import { readRefusal } from '../src/problem.js';
import { waitBefore } from '../src/retries.js';

interface Case {
  title: string;
  failure: { code?: string; status?: number; connection?: 'unsent' | 'unanswered' | 'broken' };
  attempt: number;
  asked?: number;
  repeated?: boolean;
  draw: number;
  wait: number | null;
}

const CASES = JSON.parse(
  readFileSync(new URL('../../../schema/cases/retries.json', import.meta.url), 'utf8'),
) as Case[];

function failureOf({ code, status, connection }: Case['failure']): SheafError {
  if (connection) {
    const told = { unsent: connection === 'unsent', unanswered: connection === 'unanswered' };
    return new ConnectionFailedError('No answer.', told);
  }
  const kind = code === undefined ? undefined : BY_CODE[code];
  return kind ? new kind('No.') : readRefusal('<html>', status ?? 0);
}

describe('a call is tried again, or not, after', () => {
  for (const { title, failure, attempt, asked, repeated = false, draw, wait } of CASES)
    test(title, () => {
      const found = waitBefore(failureOf(failure), attempt, { asked, repeated, draw: () => draw });
      assert.equal(found ?? null, wait);
    });
});

test('callers that were refused together come back apart, and none before it was asked', () => {
  const refused = failureOf({ code: 'overloaded' });
  const waits = Array.from({ length: 100 }, () => waitBefore(refused, 0, { asked: 2, repeated: false }));
  assert.equal(new Set(waits).size, 100);
  assert.ok(waits.every((wait) => wait !== undefined && wait >= 2 && wait < 2.5));
});
