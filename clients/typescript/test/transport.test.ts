/** Retries, the deadline over all of them, and answers that are none; each against a real server. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  BadResponseError,
  CallTimeoutError,
  ConnectionFailedError,
  InternalServerError,
  type Middleware,
  OverloadedError,
  ProblemError,
  RateLimitError,
  Sheaf,
} from '../src/index.js';
import {
  type Answer,
  answerForecast,
  hangUp,
  json,
  problem,
  type Received,
  reset,
  serve,
  silence,
} from './server.js';

const request = { model: 'chronos', history: [1, 2, 3], horizon: 2, frequency: '1h' as const };
const now = { 'Retry-After': '0' };

describe('a call is sent again', () => {
  for (const [reason, answer] of Object.entries({
    'after 429': problem('rate_limited', 429, {}, now),
    'after 503': problem('overloaded', 503, {}, now),
    'after 503 without a problem document': json('busy', 503, now),
    'after a failure of the feature store': problem('feature_store', 502),
  })) {
    test(reason, async (context) => {
      const { url, received } = await serve(context, answer, answerForecast);
      const forecast = await new Sheaf({ baseUrl: url }).timeSeries.forecast(request);
      assert.deepEqual(forecast.mean, [1, 1]);
      assert.equal(received.length, 2);
      const [first, second] = received.map(({ headers }) => headers);
      assert.equal(first?.['idempotency-key'], second?.['idempotency-key']);
      assert.ok(Number(second?.['x-sheaf-timeout']) < Number(first?.['x-sheaf-timeout']));
    });
  }

  test('after a connection that could not be made', async (context) => {
    const { url, received, pause, resume } = await serve(context, answerForecast);
    await pause();
    const failures: ConnectionFailedError[] = [];
    const middleware: Middleware = (request, next) =>
      next(request).catch(async (error: ConnectionFailedError) => {
        failures.push(error);
        await resume();
        throw error;
      });
    const client = new Sheaf({ baseUrl: url, middleware: [middleware] });
    assert.deepEqual((await client.timeSeries.forecast(request)).mean, [1, 1]);
    assert.deepEqual(
      failures.map(({ unsent }) => unsent),
      [true],
    );
    assert.equal(received.length, 1);
  });

  for (const [end, breaks] of Object.entries({ closes: hangUp, resets: reset })) {
    test(`once where the server ${end} a kept connection without an answer`, async (context) => {
      const used = new Set<number | undefined>();
      let broken: Received | undefined;
      const answer: Answer = (response, received) => {
        if (broken === undefined && used.has(received.port)) breaks(response, (broken = received));
        else answerForecast(response, received);
        used.add(received.port);
      };
      const { url, received } = await serve(context, answer);
      const client = new Sheaf({ baseUrl: url, maxRetries: 1 });
      // fetch may take a second connection before it comes back to the first.
      for (let call = 0; call < 10 && broken === undefined; call++)
        assert.deepEqual((await client.timeSeries.forecast(request)).mean, [1, 1]);
      const again = received.at(-1);
      assert.equal(again?.headers['idempotency-key'], broken?.headers['idempotency-key']);
      assert.notEqual(again?.port, broken?.port);
    });

    for (const [maxRetries, tries] of [
      [0, 1],
      [1, 2],
      [5, 2],
    ] as const) {
      test(`in ${tries} tries of ${maxRetries + 1} where the server always ${end}`, async (context) => {
        const { url, received } = await serve(context, breaks);
        const client = new Sheaf({ baseUrl: url, maxRetries });
        const error = await client.timeSeries.forecast(request).catch((error) => error);
        assert.ok(error instanceof ConnectionFailedError);
        assert.deepEqual([error.unanswered, error.unsent], [true, false]);
        assert.equal(received.length, tries);
      });
    }
  }

  test('once without an answer, however many refusals lie between', async (context) => {
    const busy = problem('overloaded', 503, {}, now);
    const { url, received } = await serve(context, hangUp, busy, hangUp);
    const client = new Sheaf({ baseUrl: url, maxRetries: 5 });
    await assert.rejects(client.timeSeries.forecast(request), ConnectionFailedError);
    assert.equal(received.length, 3);
  });

  test('as often as is allowed', async (context) => {
    const { url, received } = await serve(context, problem('rate_limited', 429, { retry_after: 0 }));
    const client = new Sheaf({ baseUrl: url, maxRetries: 3 });
    await assert.rejects(client.timeSeries.forecast(request), RateLimitError);
    assert.equal(received.length, 4);
    await assert.rejects(client.timeSeries.forecast(request, { maxRetries: 0 }), RateLimitError);
    assert.equal(received.length, 5);
  });
});

describe('a call is not sent again', () => {
  for (const [reason, answer, kind] of [
    ['after a failure of the model', problem('internal', 500), InternalServerError],
    [
      'where the server asks to wait beyond the deadline',
      problem('overloaded', 503, { retry_after: 3600 }),
      OverloadedError,
    ],
    [
      'where a date asks to wait beyond the deadline',
      problem('overloaded', 503, {}, { 'Retry-After': 'Fri, 01 Jan 2100 00:00:00 GMT' }),
      OverloadedError,
    ],
    [
      'where the answer is not JSON',
      (response: import('node:http').ServerResponse) => response.end('<html>'),
      BadResponseError,
    ],
    ['where an error is no problem document', json('proxy', 502), ProblemError],
  ] as const) {
    test(reason, async (context) => {
      const { url, received } = await serve(context, answer);
      await assert.rejects(new Sheaf({ baseUrl: url }).timeSeries.forecast(request), kind);
      assert.equal(received.length, 1);
    });
  }
});

describe('a call ends', () => {
  test('with an answer that breaks off, and is not sent again', async (context) => {
    const { url, received } = await serve(context, (response) => {
      response.writeHead(200, { 'Content-Length': '1000' }).write('{"models": [');
      setTimeout(() => response.socket?.destroy(), 10);
    });
    const error = await new Sheaf({ baseUrl: url }).models.list().catch((error: unknown) => error);
    assert.ok(error instanceof ConnectionFailedError);
    assert.equal(error.unanswered, false);
    assert.equal(received.length, 1);
  });

  test('at its deadline in the middle of an answer', async (context) => {
    const { url } = await serve(context, (response) => response.writeHead(200).write('{"models": ['));
    await assert.rejects(new Sheaf({ baseUrl: url, timeout: 0.2 }).models.list(), (error) => {
      assert.ok(error instanceof CallTimeoutError);
      assert.match(error.message, /within 0\.2 s; `timeout` gives the call another limit/);
      return true;
    });
  });

  test('at its deadline', async (context) => {
    const { url, received } = await serve(context, silence);
    const client = new Sheaf({ baseUrl: url, timeout: 0.2 });
    await assert.rejects(client.timeSeries.forecast(request), CallTimeoutError);
    assert.equal(received.length, 1);
  });

  test('at its deadline while it waits to be sent again', async (context) => {
    const { url } = await serve(context, problem('overloaded', 503, { retry_after: 0 }));
    const client = new Sheaf({ baseUrl: url, timeout: 0.3, maxRetries: 1000 });
    // The last wait does not fit, or the deadline passes within an attempt.
    await assert.rejects(
      client.timeSeries.forecast(request),
      (error) => error instanceof OverloadedError || error instanceof CallTimeoutError,
    );
  });

  test("with the caller's own reason", async (context) => {
    const stop = new AbortController();
    const reason = new Error('changed my mind');
    const { url } = await serve(context, () => stop.abort(reason));
    const client = new Sheaf({ baseUrl: url });
    await assert.rejects(client.timeSeries.forecast(request, { signal: stop.signal }), reason);
    await assert.rejects(client.timeSeries.forecast(request, { signal: stop.signal }), reason);
  });

  test('where nobody listens', async (context) => {
    const { url } = await serve(context, answerForecast);
    const closed = url.replace(/\d+$/, '1');
    const error = await new Sheaf({ baseUrl: closed, maxRetries: 1 }).models
      .list()
      .catch((error: unknown) => error);
    assert.ok(error instanceof ConnectionFailedError);
    assert.ok(error.cause instanceof Error);
    assert.ok(error.message.includes(closed));
  });
});

test('a fetch of the caller takes the place of the global one', async () => {
  const asked: string[] = [];
  const fetch = function (this: unknown, input: unknown): Promise<Response> {
    assert.equal(this, undefined, "a browser's fetch refuses to be called as a method");
    asked.push(String(input));
    return Promise.resolve(Response.json({ models: [] }));
  };
  await new Sheaf({ baseUrl: 'http://sheaf.test/api', fetch }).models.list();
  assert.deepEqual(asked, ['http://sheaf.test/api/models']);
});
