/** Base64 as Node.js writes it, and refused where the server refuses it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fromBase64, toBase64 } from '../src/base64.js';

const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7919) >> 3);

test('bytes of any number become text and bytes again', () => {
  for (let length = 0; length < 67; length++) {
    const some = bytes.subarray(length, 2 * length);
    const text = toBase64(some);
    assert.equal(text, Buffer.from(some).toString('base64'));
    assert.deepEqual(fromBase64(text), Uint8Array.from(some));
  }
});

test('every character has its value', () => {
  const all = Uint8Array.from({ length: 3 * 256 }, (_, i) => i & 255);
  assert.deepEqual(fromBase64(toBase64(all)), all);
});

test('a long text needs no stack', () => {
  const text = 'AAAA'.repeat(6_000_000);
  assert.equal(fromBase64(text)?.length, 18_000_000);
  assert.equal(fromBase64(`${text}AA!A`), undefined);
});

test('other text is none', () => {
  for (const text of [
    '=',
    '==',
    'A===',
    'Q',
    'QQ',
    'QQ=',
    'Q Q=',
    '====',
    'AAA=AAAA',
    '=AAA',
    'AA-_',
    'AAé=',
    'AAA\n',
  ])
    assert.equal(fromBase64(text), undefined, text);
});
