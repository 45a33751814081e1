/** Each rule alone, in more forms than contracts have it, and rules of schemas inside a request. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Rule } from '../src/generated/rules.gen.js';
import { breaches, type Tables } from '../src/rules.js';

const tables: Tables = {
  rules: {
    Request: [{ rule: 'requires', field: 'labels', needs: ['points', 'scale'] }],
    Chain: [{ rule: 'increasing', field: 'times' }],
  },
  nested: { Request: [['chain', 'Chain'], ['chains.*.*', 'Chain']] }, // prettier-ignore
};
const found = (body: Record<string, unknown>) =>
  breaches('Request', body, tables).map(({ code, path }) => `${code} ${path}`);

test('a member may need others', () => {
  assert.deepEqual(found({ labels: [1] }), ['requires /points', 'requires /scale']);
  assert.deepEqual(found({ labels: [1], points: [], scale: null }), ['requires /scale']);
  assert.deepEqual(found({ labels: null }), []);
});

const checked = (rule: Rule, body: Record<string, unknown>) =>
  breaches('Request', body, { rules: { Request: [rule] }, nested: {} }).map(({ code, path }) => {
    assert.equal(code, rule.rule);
    return path;
  });

test('at least one of some members is given', () => {
  const rule = { rule: 'at_least_one_of', fields: ['points', 'box'] };
  assert.deepEqual(checked(rule, { points: null }), ['']);
  assert.deepEqual(checked(rule, { box: [], points: [] }), []);
});

test('at least one of some flags is true', () => {
  const rule = { rule: 'some_true', fields: ['logits', 'embeddings'] };
  assert.deepEqual(checked(rule, { logits: false }), ['']);
  assert.deepEqual(checked(rule, { logits: false, embeddings: true }), []);
});

test('items differ in a member', () => {
  const rule = { rule: 'unique_by', field: 'chains', member: 'id' };
  assert.deepEqual(checked(rule, { chains: [{ id: 'A' }, { id: 'B' }, { id: 'A' }] }), ['/chains/2/id']);
  assert.deepEqual(checked(rule, { chains: [{ id: 'A' }, { id: 'B' }] }), []);
});

test('items are columns of a table', () => {
  const rule = { rule: 'items_within', field: 'columns', of: 'rows' };
  const rows = [[1, 2, 3], [4, 5, 6]]; // prettier-ignore
  assert.deepEqual(checked(rule, { rows, columns: [2, 3, 4] }), ['/columns/1']);
  assert.deepEqual(checked(rule, { rows, columns: [-1] }), ['/columns/0']);
  assert.deepEqual(checked(rule, { rows, columns: [0, 2] }), []);
  assert.deepEqual(checked(rule, { rows: [1, 2, 3], columns: [0, 1] }), ['/columns/1']);
  assert.deepEqual([checked(rule, { rows, columns: null }), checked(rule, { columns: [9] })], [[], []]);
});

test('tables are equally wide, and lists as long as a table is wide', () => {
  const same = { rule: 'same_width', field: 'query', as: 'context' };
  assert.deepEqual(checked(same, { query: [[1, 2]], context: [[1, 2, 3]] }), ['/query']);
  assert.deepEqual(checked(same, { query: [[1, 2]], context: [[3, 4], [5, 6]] }), []); // prettier-ignore
  assert.deepEqual(checked(same, { query: [[1, 2]], context: null }), []);
  const names = { rule: 'length_is_width', field: 'names', of: 'context' };
  assert.deepEqual(checked(names, { names: ['a'], context: [[1, 2, 3]] }), ['/names']);
  assert.deepEqual(checked(names, { names: ['a', 'b', 'c'], context: [[1, 2, 3]] }), []);
});

test('mappings have the same names', () => {
  const rule = { rule: 'same_keys', field: 'before', as: 'now' };
  assert.deepEqual(checked(rule, { before: { a: 1, 'x/y': 2, z: 3 }, now: { a: 1 } }), ['/before/x~1y']);
  assert.deepEqual(checked(rule, { before: { a: 1 }, now: { a: 1, b: 2 } }), ['/before']);
  assert.deepEqual(checked(rule, { before: { toString: 1 }, now: {} }), ['/before/toString']);
  assert.deepEqual(checked(rule, { before: { b: 1, a: 1 }, now: { a: 1, b: 2 } }), []);
  assert.deepEqual(checked(rule, { before: null, now: { a: 1 } }), []);
});

test('a value may be for another value alone', () => {
  const rule = {
    rule: 'value_requires',
    field: 'mode',
    value: 'quantiles',
    needs: 'task',
    equals: 'regression',
  };
  assert.deepEqual(checked(rule, { mode: 'quantiles', task: 'classification' }), ['/mode']);
  assert.deepEqual(checked(rule, { mode: 'quantiles', task: 'regression' }), []);
  assert.deepEqual(checked(rule, { mode: 'mean', task: 'classification' }), []);
  const flag = { rule: 'value_requires', field: 'stress', value: true, needs: 'pbc', equals: true };
  assert.deepEqual(checked(flag, { stress: true, pbc: false }), ['/stress']);
  assert.deepEqual(checked(flag, { stress: false, pbc: false }), []);
});

test('a member is needed when a flag is true, or one of several flags', () => {
  const rule = { rule: 'needed_when_true', field: 'cell', flag: 'pbc' };
  assert.deepEqual(checked(rule, { pbc: true, cell: null }), ['/cell']);
  assert.deepEqual(checked(rule, { pbc: [false, true, false] }), ['/cell']);
  assert.deepEqual(checked(rule, { pbc: [false, false, false] }), []);
  assert.deepEqual(checked(rule, { pbc: true, cell: [] }), []);
  const spared = { ...rule, unless: 'structures' };
  assert.deepEqual(checked(spared, { pbc: true, structures: null }), ['/cell']);
  assert.deepEqual(checked(spared, { pbc: true, structures: [] }), []);
});

test('a flag may have to be false beside another member', () => {
  const rule = { rule: 'not_true_beside', field: 'pbc', other: 'structures' };
  assert.deepEqual(checked(rule, { pbc: true, structures: [] }), ['/pbc']);
  assert.deepEqual(checked(rule, { pbc: [false, true, false], structures: [] }), ['/pbc']);
  assert.deepEqual(checked(rule, { pbc: [false, false, false], structures: [] }), []);
  assert.deepEqual(checked(rule, { pbc: true, structures: null }), []);
});

test('boxes have their corners in order', () => {
  const rule = { rule: 'boxes', field: 'boxes' };
  assert.deepEqual(checked(rule, { boxes: [[0, 0, 1, 1], [0, 5, 1, 5]] }), ['/boxes/1']); // prettier-ignore
  assert.deepEqual(checked(rule, { boxes: [2, 0, 1, 1] }), ['/boxes']);
  assert.deepEqual(checked(rule, { boxes: [0, 0, 1, 1] }), []);
  assert.deepEqual([checked(rule, { boxes: [] }), checked(rule, { boxes: null })], [[], []]);
});

test('rules hold inside a request, wherever it holds their schema, and before its own', () => {
  const chains = { 'a/b': [{ times: [1, 2] }, { times: [3, 4, 4] }], c: [] };
  assert.deepEqual(found({ chain: { times: [2, 1] }, chains, labels: [1] }), [
    'increasing /chain/times/1',
    'increasing /chains/a~1b/1/times/2',
  ]);
  assert.deepEqual(found({ chain: null, chains: { c: [{ times: null }] } }), []);
});

test('a rule that this version does not know is an error, not a pass', () => {
  const unknown: Tables = { rules: { Request: [{ rule: 'coplanar', field: 'points' }] }, nested: {} };
  assert.throws(() => breaches('Request', {}, unknown), /coplanar/);
});
