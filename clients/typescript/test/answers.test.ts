/** Answers to another request are not taken; frames of streams say in their data what they are. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  BadResponseError,
  InternalServerError,
  InvalidRequestError,
  OverloadedError,
  Sheaf,
} from '../src/index.js';
import { forecast, json, packed, serve, type Answer, type Received } from './server.js';

const OTHER = '99999999-2222-4333-8444-555555555555';
const request = { model: 'chronos', history: [1, 2, 3], horizon: 2, frequency: '1h' as const };
const mine = (body: Received['body']) => forecast(body, { request_id: body.request_id.toUpperCase() });
const foreign = (body: Received['body']) => forecast(body, { request_id: OTHER });
const refused = (request_id: string | null) => ({
  type: '/problems/invalid',
  title: 'Invalid',
  status: 422,
  code: 'invalid',
  request_id,
});

/** A stream without one `event:` line. */
function frames(make: (body: Received['body']) => unknown[]): Answer {
  return (response, { body }) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.end(make(body).map((data) => `data: ${JSON.stringify(data)}\n\n`).join(''));
  };
}

describe('an answer to another request is not returned', () => {
  const ways: Record<string, (value: (body: Received['body']) => unknown) => Answer> = {
    'as JSON': (value) => (response, received) => json(value(received.body))(response, received),
    'as MessagePack': (value) => (response, received) => packed(value(received.body))(response, received),
  };
  for (const [name, write] of Object.entries(ways)) {
    test(name, async (context) => {
      const { url } = await serve(context, write(mine), write(foreign));
      const client = new Sheaf({ baseUrl: url });
      assert.deepEqual((await client.timeSeries.forecast(request)).mean, [1, 1]);
      await assert.rejects(
        client.timeSeries.forecast(request),
        (error) => error instanceof BadResponseError && error.message.includes(OTHER),
      );
    });
  }

  test('by a stream', async (context) => {
    const result = (value: typeof mine) =>
      frames((body) => [{ type: 'result', done: true, ...value(body) }]);
    const { url } = await serve(context, result(mine), result(foreign));
    const client = new Sheaf({ baseUrl: url });
    assert.deepEqual((await client.timeSeries.stream(request).final()).mean, [1, 1]);
    await assert.rejects(client.timeSeries.stream(request).final(), BadResponseError);
  });

  test('in a batch', async (context) => {
    const batch = (make: (requests: Received['body'][]) => unknown[]): Answer =>
      (response, received) => json({ responses: make(received.body.requests) })(response, received);
    const { url } = await serve(
      context,
      batch(([one, two]) => [forecast(one), refused(two.request_id)]),
      batch(([one]) => [forecast(one), refused(null)]),
      batch(([one, two]) => [forecast(two), forecast(one)]),
      batch(([one]) => [forecast(one), refused(one.request_id)]),
    );
    const send = () => new Sheaf({ baseUrl: url }).timeSeries.forecastMany([request, request]);
    for (let right = 0; right < 2; right++) assert.ok((await send())[1] instanceof InvalidRequestError);
    for (let wrong = 0; wrong < 2; wrong++) await assert.rejects(send(), BadResponseError);
  });
});

describe('frames without an event line', () => {
  test('say in their data what they are', async (context) => {
    const { url } = await serve(
      context,
      frames((body) => [
        { type: 'progress', step: 1, total_steps: 2, done: false },
        { type: 'thought', text: 'hm' },
        { type: 'result', done: true, ...forecast(body) },
      ]),
    );
    const kinds: string[] = [];
    for await (const event of new Sheaf({ baseUrl: url }).timeSeries.stream(request)) kinds.push(event.type);
    assert.deepEqual(kinds, ['progress', 'thought', 'result']);
  });

  test('tell an error by a text or by a problem', async (context) => {
    const busy = { type: '/problems/overloaded', title: 'Busy', status: 503, code: 'overloaded' };
    const { url, received } = await serve(
      context,
      frames(() => [{ type: 'error', done: true, error: 'CUDA error: out of memory' }]),
      frames(() => [{ type: 'error', problem: busy, error: 'another text' }]),
      frames(() => [{ type: 'error', error: 5 }]),
      frames(() => [[1]]),
    );
    const read = () => new Sheaf({ baseUrl: url }).timeSeries.stream(request).final();
    await assert.rejects(read(), (error) => {
      assert.ok(error instanceof InternalServerError);
      assert.equal(error.detail, 'CUDA error: out of memory');
      assert.equal(error.requestId, received[0]?.body.request_id);
      return true;
    });
    await assert.rejects(read(), OverloadedError);
    await assert.rejects(read(), BadResponseError);
    await assert.rejects(read(), BadResponseError);
  });
});
