/** What the cases cannot reach yet: rules that no contract has so far, and rules of schemas inside a request. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

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
