/** What stands between the client and the network, and what is told of it: middleware, the log, no secrets. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';

import { ConnectionFailedError, Sheaf, SheafError, type LogEntry, type Middleware } from '../src/index.js';
import { answerForecast, hangUp, json, problem, serve } from './server.js';

const request = { model: 'chronos', history: [1, 2, 3], horizon: 2, frequency: '1h' as const };
const SECRET = 'sk-very-secret';

describe('middleware', () => {
  test('stands around every request, the first outermost', async (context) => {
    const { url, received } = await serve(
      context,
      problem('overloaded', 503, { retry_after: 0 }),
      answerForecast,
    );
    const order: string[] = [];
    const layer =
      (name: string): Middleware =>
      async (request, next) => {
        order.push(`${name} ${request.method}`);
        request.headers.set(`X-${name}`, request.headers.get('X-Request-ID') ?? '');
        const response = await next(request);
        order.push(`${name} ${response.status}`);
        return response;
      };
    const client = new Sheaf({ baseUrl: url, middleware: [layer('Outer'), layer('Inner')] });
    const answer = await client.timeSeries.forecast(request);
    const round = (status: number) => [`Outer POST`, `Inner POST`, `Inner ${status}`, `Outer ${status}`];
    assert.deepEqual(order, [...round(503), ...round(200)]);
    assert.equal(received[1]?.headers['x-inner'], answer.request_id);
    assert.deepEqual(received[1]?.body.history, [1, 2, 3]);
  });

  test('may answer by itself', async (context) => {
    const { url, received } = await serve(context, hangUp);
    const cached: Middleware = async () => Response.json({ models: [] });
    assert.deepEqual(await new Sheaf({ baseUrl: url, middleware: [cached] }).models.list(), []);
    assert.equal(received.length, 0);
  });

  test('sees failed connections, and its own errors reject the call once', async (context) => {
    const { url, received } = await serve(context, hangUp);
    const seen: unknown[] = [];
    const own = new RangeError('No budget left.');
    const refusing: Middleware = async (request, next) => {
      await next(request).catch((error: unknown) => seen.push(error));
      throw own;
    };
    await assert.rejects(new Sheaf({ baseUrl: url, middleware: [refusing] }).models.list(), own);
    assert.ok(seen[0] instanceof ConnectionFailedError);
    assert.equal(received.length, 1);
  });

  test('stands around streams, and ends with their deadline', async (context) => {
    const { url } = await serve(context, (response) => response.writeHead(200).write(': here\n\n'));
    let accepted: string | null = null;
    const noting: Middleware = (request, next) => {
      accepted = request.headers.get('Accept');
      return next(request);
    };
    const client = new Sheaf({ baseUrl: url, middleware: [noting], timeout: 0.2 });
    await assert.rejects(client.timeSeries.stream(request).final(), SheafError);
    assert.equal(accepted, 'text/event-stream');
  });
});

describe('the log', () => {
  test('tells of every request, every answer and every failure', async (context) => {
    const { url } = await serve(context, problem('overloaded', 503, { retry_after: 0 }), hangUp);
    const entries: LogEntry[] = [];
    const client = new Sheaf({ baseUrl: url, maxRetries: 1, log: (entry) => entries.push(entry) });
    await assert.rejects(client.timeSeries.forecast(request), ConnectionFailedError);
    assert.deepEqual(
      entries.map(({ level, event, attempt, status }) => [level, event, attempt, status]),
      [
        ['debug', 'request', 1, undefined],
        ['info', 'response', 1, 503],
        ['debug', 'request', 2, undefined],
        ['info', 'failure', 2, undefined],
      ],
    );
    for (const entry of entries) {
      assert.equal(entry.url, `${url}/chronos/time_series/forecast`);
      assert.equal(entry.requestId, entries[0]?.requestId);
      assert.ok(entry.message.includes(`POST ${entry.url}`));
      assert.equal(entry.elapsed === undefined, entry.event === 'request');
    }
    assert.ok(entries[3]?.error instanceof ConnectionFailedError);
  });

  test('shows no secrets', async (context) => {
    const { url } = await serve(context, json({ models: [] }, 200, { 'Set-Cookie': `session=${SECRET}` }));
    const entries: LogEntry[] = [];
    const client = new Sheaf({
      baseUrl: url,
      apiKey: SECRET,
      headers: { 'X-Api-Key': SECRET, Cookie: SECRET, 'X-Team': SECRET },
      log: (entry) => entries.push(entry),
    });
    await client.models.list({ headers: { 'Proxy-Authorization': SECRET } });
    assert.equal(entries.length, 2);
    assert.ok(!JSON.stringify(entries).includes(SECRET));
    const [sent, got] = entries.map(({ headers }) => headers ?? {});
    assert.equal(sent?.authorization, '***');
    assert.equal(sent?.['x-api-key'], '***');
    assert.equal(sent?.accept, 'application/json');
    assert.equal(sent?.['x-request-id'], entries[0]?.requestId);
    assert.deepEqual([got?.['set-cookie'], got?.['content-type']], ['***', 'application/json']);
  });

  test('goes to the console from its level on, also by the environment', async (context) => {
    const { url } = await serve(context, json({ models: [] }));
    const info = context.mock.method(console, 'info', () => undefined);
    const debug = context.mock.method(console, 'debug', () => undefined);
    context.after(() => delete process.env.SHEAF_LOG);
    await new Sheaf({ baseUrl: url, log: 'info' }).models.list();
    assert.deepEqual([info.mock.callCount(), debug.mock.callCount()], [1, 0]);
    process.env.SHEAF_LOG = 'debug';
    await new Sheaf({ baseUrl: url, apiKey: SECRET }).models.list();
    assert.deepEqual([info.mock.callCount(), debug.mock.callCount()], [1, 2]);
    process.env.SHEAF_LOG = 'everything';
    await new Sheaf({ baseUrl: url }).models.list();
    assert.deepEqual([info.mock.callCount(), debug.mock.callCount()], [1, 2]);
    const lines = [...info.mock.calls, ...debug.mock.calls].flatMap((call) => call.arguments);
    assert.match(String(lines[0]), /^sheaf: GET .*\/models .* 200$/);
    assert.ok(!JSON.stringify(lines).includes(SECRET));
  });
});

describe('a client shown', () => {
  test('has its server and model, and no secrets', () => {
    const client = new Sheaf({
      baseUrl: 'http://sheaf.test',
      apiKey: SECRET,
      headers: { Cookie: SECRET },
      model: 'chronos',
    });
    assert.equal(String(client), 'Sheaf(http://sheaf.test, model chronos)');
    assert.equal(inspect(client), 'Sheaf(http://sheaf.test, model chronos)');
    for (const part of [client, client.models, client.timeSeries, client.timeSeries.stream(request)]) {
      assert.ok(!inspect(part, { depth: 10, showHidden: true }).includes(SECRET));
      assert.ok(!(JSON.stringify(part) ?? '').includes(SECRET));
    }
  });

  test('has no secrets in its address', () => {
    const make = () => new Sheaf({ baseUrl: `https://me:${SECRET}@sheaf.test` });
    assert.throws(make, (error) => error instanceof SheafError && !error.message.includes(SECRET));
  });

  test('may be changed and keeps the rest', async (context) => {
    const { url, received } = await serve(context, json({ models: [] }));
    const client = new Sheaf({ baseUrl: url, apiKey: SECRET, headers: { 'X-Team': 'a' } });
    const changed = client.withOptions({ headers: { 'X-Team': 'b' }, timeout: 5, apiKey: undefined });
    await changed.models.list();
    await client.models.list();
    assert.deepEqual(
      received.map(({ headers }) => [headers['x-team'], headers.authorization]),
      [
        ['b', `Bearer ${SECRET}`],
        ['a', `Bearer ${SECRET}`],
      ],
    );
    assert.ok(Number(received[0]?.headers['x-sheaf-timeout']) <= 5);
  });
});
