/** Arguments that cannot be used are refused where they are given, by name, with no secret in any text. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';

import { ArgumentError, ConnectionFailedError, Sheaf, SheafError, type SheafOptions } from '../src/index.js';
import { json, serve } from './server.js';

const SECRET = 'sk-very-secret';
const models = json({ models: [] });
const FORECAST = { model: 'chronos', history: [1, 2], horizon: 1, frequency: '1h' as const };

/** A refusal that names what it is about, and shows no secret. */
function about(pattern: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof ArgumentError && error instanceof SheafError);
    assert.match(error.message, pattern);
    assert.ok(!inspect(error).includes(SECRET));
    return true;
  };
}

describe('an address is checked where the client is made', () => {
  for (const [baseUrl, pattern] of Object.entries({
    '127.0.0.1:8000': /did you mean 'http:\/\/127\.0\.0\.1:8000'/,
    'localhost:8000': /did you mean 'http:\/\/localhost:8000'/,
    [`me:${SECRET}@example.org`]: /did you mean 'http:\/\/example\.org'/,
    'ftp://example.org': /begins with/,
    '/api': /begins with/, // of which page?
    '': /begins with/,
    'http://': /no URL/,
    'http://a b': /no URL/,
    'http://a:99999': /no URL/,
    [`http://a?key=${SECRET}`]: /query/,
    [`http://me:${SECRET}@a`]: /no user and password/,
  })) {
    test(`such as ${baseUrl}`, () => assert.throws(() => new Sheaf({ baseUrl }), about(pattern)));
  }

  test('in the environment too', (context) => {
    process.env.SHEAF_BASE_URL = 'localhost:8000';
    context.after(() => delete process.env.SHEAF_BASE_URL);
    assert.throws(() => new Sheaf(), about(/SHEAF_BASE_URL/));
  });

  test('and taken in any usual form', () => {
    assert.equal(String(new Sheaf({ baseUrl: ' HTTP://[::1]:80/x// ' })), 'Sheaf(HTTP://[::1]:80/x)');
  });
});

describe('what a client is made of', () => {
  const make = (given: unknown) => new Sheaf(given as SheafOptions);

  test('is also its address alone', async (context) => {
    const { url, received } = await serve(context, models);
    await new Sheaf(url).models.list();
    await new Sheaf({ baseUrl: 'http://127.0.0.1:9' }).withOptions({ baseUrl: url }).models.list();
    assert.equal(received.length, 2);
    assert.throws(() => new Sheaf('10.0.0.5:9000'), about(/did you mean 'http:\/\/10\.0\.0\.5:9000'/));
  });

  for (const given of [5, null, true, ['http://a'], new URL('http://a'), new Map([['baseUrl', 'http://a']])]) {
    test(`is nothing such as ${inspect(given)}`, () => {
      assert.throws(() => make(given), about(/baseUrl: 'http:/));
      assert.throws(() => new Sheaf().withOptions(given as SheafOptions), about(/an object of options/));
    });
  }

  for (const [name, pattern] of Object.entries({
    baseURL: /'baseURL'; did you mean 'baseUrl'/,
    base_url: /did you mean 'baseUrl'/,
    api_key: /did you mean 'apiKey'/,
    'max-retries': /did you mean 'maxRetries'/,
    url: /'url'; there are baseUrl, apiKey,/,
  })) {
    test(`has no option ${name}`, () => {
      assert.throws(() => make({ [name]: SECRET }), about(pattern));
      assert.throws(() => new Sheaf().withOptions({ [name]: SECRET }), about(pattern));
    });
  }
});

test('a call refuses options that it has not', async () => {
  const client = new Sheaf({ baseUrl: 'http://127.0.0.1:9' });
  const wrong: [unknown, RegExp][] = [
    [{ max_retries: 0 }, /did you mean 'maxRetries'/],
    [{ apiKey: SECRET }, /'apiKey'; there are timeout, maxRetries, headers, signal/],
    [null, /null was given/],
    [5, /Number was given/],
  ];
  for (const [options, pattern] of wrong) {
    await assert.rejects(client.models.list(options as object), about(pattern));
    await assert.rejects(client.timeSeries.stream(FORECAST, options as object).final(), about(pattern));
  }
});

describe('an option is checked where it is given', () => {
  const wrong: [keyof SheafOptions, unknown][] = [
    ...[`${SECRET} x`, `${SECRET}\nx`, `${SECRET}ü`, 5].map((value) => ['apiKey', value] as const),
    ...[0, -1, NaN, Infinity, 86_401, '5'].map((value) => ['timeout', value] as const),
    ...[-1, 1.5, '2', NaN].map((value) => ['maxRetries', value] as const),
    ...['a: b', ['a'], { 'x-user': `${SECRET} Jürgen` }].map((value) => ['headers', value] as const),
    ...[`${SECRET}\r\nx: 1`, `${SECRET}\0`, 5].map((value) => ['headers', { 'x-a': value }] as const),
    ...['', 'x a', 'ü', 'Content-Length'].map((name) => ['headers', { [name]: SECRET }] as const),
    ['binary', 'sometimes'],
    ['middleware', 'text'],
    ['middleware', ['text']],
    ['adapters', 'sketch'],
    ['adapters', [5]],
    ['model', 5],
    ['log', 'loud'],
    ['fetch', 'text'],
  ].map(([name, value]) => [name as keyof SheafOptions, value]);
  for (const [name, value] of wrong) {
    test(`${name} ${JSON.stringify(value)}`, () => {
      const options = { [name]: value } as SheafOptions;
      assert.throws(() => new Sheaf(options), about(new RegExp(name.slice(0, 7), 'i')));
      assert.throws(() => new Sheaf().withOptions(options), about(new RegExp(name.slice(0, 7), 'i')));
    });
  }

  test('and those of one call when it is made', async (context) => {
    const { url, received } = await serve(context, models);
    const client = new Sheaf({ baseUrl: url });
    await assert.rejects(client.models.list({ timeout: -1 }), about(/timeout/));
    await assert.rejects(client.models.list({ maxRetries: 0.5 }), about(/maxRetries/));
    await assert.rejects(client.models.list({ headers: { 'x-user': `${SECRET}\n.` } }), about(/x-user/));
    assert.equal(received.length, 0);
  });
});

test('a key of a file is sent without its newline', async (context) => {
  const { url, received } = await serve(context, models);
  await new Sheaf({ baseUrl: url, apiKey: `${SECRET}\r\n` }).models.list();
  process.env.SHEAF_API_KEY = `${SECRET}\n`;
  context.after(() => delete process.env.SHEAF_API_KEY);
  await new Sheaf({ baseUrl: url }).models.list();
  assert.deepEqual(
    received.map(({ headers }) => headers.authorization),
    [`Bearer ${SECRET}`, `Bearer ${SECRET}`],
  );
});

test('a server that is down is told with its address and what to do', async () => {
  const client = new Sheaf({ baseUrl: 'http://127.0.0.1:9', maxRetries: 0 });
  await assert.rejects(client.models.list(), (error) => {
    assert.ok(error instanceof ConnectionFailedError);
    assert.match(error.message, /http:\/\/127\.0\.0\.1:9.*sheaf serve.*SHEAF_BASE_URL/);
    return true;
  });
});
