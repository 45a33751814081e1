/** MessagePack whose lists say to hold what is not there is refused before room is made for it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { encode, ExtData } from '@msgpack/msgpack';

import { isPlausible } from '../src/packed.js';

const VALUES: unknown[] = [
  ...[null, true, 0, 127, 128, 70_000, 2 ** 40, -1, -33, -200, -70_000, -(2 ** 40), 1.5],
  ...['', 'a'.repeat(31), 'a'.repeat(32), 'ä'.repeat(200), 'a'.repeat(70_000)],
  ...[1, 300, 70_000].map((size) => new Uint8Array(size)),
  ...[1, 2, 4, 8, 16, 3, 300, 70_000].map((size) => new ExtData(5, new Uint8Array(size))),
  ...[0, 15, 16, 70_000].map((size) => Array(size).fill(null)),
  ...[0, 15, 16, 70_000].map((size) => Object.fromEntries(Array.from({ length: size }, (_, i) => [`k${i}`, i]))),
  [[[[]]], { a: { b: [{}, []] } }],
];

function bytes(value: unknown): Uint8Array<ArrayBuffer> {
  return new Uint8Array(encode(value));
}

describe('what a list says to hold', () => {
  test('is there in all that is whole, within other values, too', () => {
    for (const value of [...VALUES, VALUES, { all: VALUES, again: VALUES }]) assert.ok(isPlausible(bytes(value)));
    assert.ok(isPlausible(new Uint8Array()));
  });

  for (const value of VALUES) {
    test(`is missed behind ${JSON.stringify(value).slice(0, 40)}`, () => {
      const whole = bytes([value, [1, 2, 3]]);
      assert.ok(isPlausible(whole));
      assert.ok(!isPlausible(whole.slice(0, -1))); // the list of three is the last
    });
  }

  for (const said of ['dd7fffffff', 'dc00ff', 'df7fffffff', 'de00ff', '9f', '8f', '81a161dd00ffffff', '9201dd00000002c0']) {
    test(`is missed in ${said}`, () => {
      assert.ok(!isPlausible(new Uint8Array(Buffer.from(said, 'hex'))));
    });
  }

  test('is not looked for where a text breaks off', () => {
    for (const cut of ['da', 'da00', 'c6000000', 'c90000', 'ce00', 'd8', 'ab61', 'dd0000'])
      assert.ok(isPlausible(new Uint8Array(Buffer.from(cut, 'hex'))), cut);
  });
});
