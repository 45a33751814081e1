/** The parser of Server-Sent Events, cut anywhere, and the streams of a real server. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';

import {
  BackendError,
  BadResponseError,
  CallTimeoutError,
  ConnectionFailedError,
  InvalidRequestError,
  OverloadedError,
  Sheaf,
  SheafError,
} from '../src/index.js';
import { parseEvents, type Message } from '../src/streaming.js';
import { png, PNG } from './png.js';
import { events, forecast, problem, serve, type Answer } from './server.js';

async function parse(chunks: Uint8Array[]): Promise<Message[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  const found: Message[] = [];
  for await (const message of parseEvents(body)) found.push(message);
  return found;
}

const base64 = (data: string | ArrayBufferLike) =>
  Buffer.from(data as ArrayBuffer).toString('base64');
const encode = (text: string) => new TextEncoder().encode(text);

describe('the parser', () => {
  const text = [
    '\uFEFF: keep-alive',
    '',
    'event: progress',
    'id: 1',
    'data: {"step": 1,',
    'data:"ü🌲"}',
    '',
    ':',
    'retry: 10',
    'event',
    'data',
    'data',
    '',
    'event: lost',
    '',
    'id: 2',
    'data:  two',
    '',
    'data: cut off',
  ];
  const expected = [
    { event: 'progress', data: '{"step": 1,\n"ü🌲"}', id: '1' },
    { event: 'message', data: '\n', id: '1' },
    { event: 'message', data: ' two', id: '2' },
  ];

  for (const [name, end] of Object.entries({ LF: '\n', CRLF: '\r\n', CR: '\r' })) {
    const bytes = encode(text.join(end));

    test(`reads lines that end in ${name}`, async () => assert.deepEqual(await parse([bytes]), expected));

    test(`reads them byte by byte, ${name}`, async () => {
      assert.deepEqual(await parse(Array.from(bytes, (byte) => Uint8Array.of(byte))), expected);
    });

    test(`reads them cut anywhere, ${name}`, async () => {
      for (let cut = 0; cut <= bytes.length; cut++) {
        assert.deepEqual(await parse([bytes.slice(0, cut), bytes.slice(cut)]), expected, `cut at ${cut}`);
      }
    });
  }

  test('gives a message that ends with the stream', async () => {
    assert.deepEqual(await parse([encode('data: x\r\r')]), [{ event: 'message', data: 'x', id: '' }]);
    assert.deepEqual(await parse([encode('data: x\n\n')]), [{ event: 'message', data: 'x', id: '' }]);
  });

  test('reads nothing from an empty stream', async () => assert.deepEqual(await parse([]), []));
});

const request = { model: 'chronos', history: [1, 2, 3], horizon: 2, frequency: '1h' as const };
const step = (n: number, more: object = {}) => ({
  type: 'progress',
  step: n,
  total_steps: 3,
  done: false,
  ...more,
});
const whole: Answer = events((body) => [
  ['progress', step(1, { note: 'n' })],
  ['thought', { type: 'thought', text: 'hm' }],
  ['result', { type: 'result', done: true, ...forecast(body) }],
  ['progress', step(3)],
]);

describe('a stream', () => {
  test('gives its events in order, the unknown ones too, and ends with the result', async (context) => {
    const { url, received } = await serve(context, whole);
    const stream = new Sheaf({ baseUrl: url }).timeSeries.stream(request);
    const found: Record<string, unknown>[] = [];
    for await (const event of stream) found.push(event);

    assert.deepEqual(found[0], step(1, { note: 'n' }));
    assert.deepEqual(found[1], { type: 'thought', text: 'hm' });
    assert.equal(found.length, 3);
    assert.equal(found[2]?.type, 'result');
    assert.deepEqual(found[2]?.mean, [1, 1]);
    const final = await stream.final();
    assert.deepEqual(found[2], { type: 'result', done: true, ...final });
    assert.equal(`${received[0]?.method} ${received[0]?.path}`, 'POST /chronos/stream');
    assert.equal(received[0]?.headers.accept, 'text/event-stream');
    assert.equal(received[0]?.headers['idempotency-key'], received[0]?.body.request_id);
  });

  test('gives its result alone', async (context) => {
    const { url } = await serve(context, whole);
    const final = await new Sheaf({ baseUrl: url }).timeSeries.stream(request).final();
    assert.deepEqual([final.mean, final.point, 'type' in final], [[1, 1], 'mean', false]);
  });

  test('has typed events', async (context) => {
    const { url } = await serve(context, whole);
    for await (const event of new Sheaf({ baseUrl: url }).timeSeries.stream(request)) {
      if (event.type === 'progress') assert.equal(event.step satisfies number, 1);
      else if (event.type === 'result') assert.deepEqual(event.mean satisfies number[], [1, 1]);
    }
  });

  test('has previews as files', async (context) => {
    const preview_b64 = PNG;
    const { url } = await serve(
      context,
      events(({ request_id, model_name }) => [
        ['progress', step(1, { preview_b64 })],
        [
          'result',
          { type: 'result', request_id, model_name, model_type: 'diffusion', image_b64: preview_b64, seed: 1 },
        ],
      ]),
    );
    const stream = new Sheaf({ baseUrl: url }).diffusion.stream({ model: 'flux', prompt: 'a lighthouse' });
    const before = stream.response;
    assert.equal(before, undefined);
    const first = await stream[Symbol.asyncIterator]().next();
    assert(!first.done && first.value.type === 'progress');
    assert.deepEqual(first.value.preview satisfies Uint8Array | null, png());
    assert.equal('preview_b64' in first.value, false);
    assert.equal(stream.response?.headers.get('content-type'), 'text/event-stream');
    await stream.close();
  });

  test('has the arrays of each step, of the event alone', async (context) => {
    const grid = (...numbers: number[]) => base64(Float32Array.from(numbers).buffer);
    const shown = { forecast_time: '2024-06-01', surface_forecast: { t: grid(1, 2) }, n_lat: 1, n_lon: 2 };
    const { url } = await serve(
      context,
      events(() => [
        ['progress', step(1, shown)],
        ['progress', step(2)],
        ['progress', step(3, { ...shown, n_lon: 3 })],
      ]),
    );
    const field = new Float32Array([280, 281]);
    const stream = new Sheaf({ baseUrl: url }).weather.stream({
      model: 'aurora',
      surface_vars: { t: field },
      atmospheric_vars: { q: field },
      prev_surface_vars: { t: field },
      prev_atmospheric_vars: { q: field },
      lat: [0],
      lon: [0, 180],
      pressure_levels: [500],
      current_time: '2024-05-31',
    });
    const told: (Record<string, Float32Array> | null)[] = [];
    await assert.rejects(
      async () => {
        for await (const event of stream) if (event.type === 'progress') told.push(event.surface_forecast);
      },
      (error) => error instanceof BadResponseError && /WeatherProgress at \/surface_forecast\/t/.test(error.message),
    );
    assert.deepEqual(told, [{ t: new Float32Array([1, 2]) }, null]);
  });

  test('arrives event by event', async (context) => {
    let proceed = () => {};
    const { url } = await serve(context, (response, { body }) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write(`event: progress\ndata: ${JSON.stringify(step(1))}\n\n`);
      proceed = () =>
        response.end(
          `event: result\ndata: ${JSON.stringify({ type: 'result', done: true, ...forecast(body) })}\n\n`,
        );
    });
    const kinds: string[] = [];
    for await (const event of new Sheaf({ baseUrl: url }).timeSeries.stream(request)) {
      kinds.push(event.type);
      proceed(); // the server says no more before the first event is here
    }
    assert.deepEqual(kinds, ['progress', 'result']);
  });

  test('raises the error it carries', async (context) => {
    const failed = {
      type: '/problems/backend_failed',
      title: 'The model failed',
      status: 500,
      code: 'backend_failed',
    };
    const { url } = await serve(
      context,
      events(() => [
        ['progress', step(1)],
        ['error', { type: 'error', done: true, problem: failed }],
      ]),
    );
    const stream = new Sheaf({ baseUrl: url }).timeSeries.stream(request);
    const kinds: string[] = [];
    const loop = async () => {
      for await (const event of stream) kinds.push(event.type);
    };
    await assert.rejects(loop(), BackendError);
    assert.deepEqual(kinds, ['progress']);
    await assert.rejects(stream.final(), BackendError);
  });

  test('is asked for again before it began, never after', async (context) => {
    const begun: Answer = (response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write(': here\n\n');
      setTimeout(() => response.socket?.destroy(), 10);
    };
    const { url, received } = await serve(
      context,
      problem('overloaded', 503, { retry_after: 0 }),
      begun,
      whole,
    );
    await assert.rejects(
      new Sheaf({ baseUrl: url }).timeSeries.stream(request).final(),
      ConnectionFailedError,
    );
    assert.equal(received.length, 2);
  });

  test('that is refused raises the problem', async (context) => {
    const { url } = await serve(context, problem('overloaded', 503, { retry_after: 3600 }));
    await assert.rejects(new Sheaf({ baseUrl: url }).timeSeries.stream(request).final(), OverloadedError);
  });

  test('that is invalid is refused before anything is sent', async (context) => {
    const { url, received } = await serve(context, whole);
    await assert.rejects(
      new Sheaf({ baseUrl: url }).timeSeries.stream({ ...request, horizon: 0 }).final(),
      InvalidRequestError,
    );
    assert.equal(received.length, 0);
  });

  for (const [name, make] of Object.entries<[string, unknown][]>({
    'an event that is no object': [['progress', 3]],
    'progress of another form': [['progress', { type: 'progress', step: 'one' }]],
    'a result that breaks the contract': [['result', { type: 'result', done: true }]],
    'an error without a problem': [['error', { type: 'error', done: true }]],
  })) {
    test(`is refused with ${name}`, async (context) => {
      const { url } = await serve(
        context,
        events(() => make),
      );
      await assert.rejects(new Sheaf({ baseUrl: url }).timeSeries.stream(request).final(), BadResponseError);
    });
  }

  test('that ends without a result is a bad response', async (context) => {
    const { url } = await serve(
      context,
      events(() => [['progress', step(1)]]),
    );
    await assert.rejects(
      new Sheaf({ baseUrl: url }).timeSeries.stream(request).final(),
      BadResponseError,
    );
  });

  test('ends at its deadline', async (context) => {
    const { url } = await serve(context, (response) => response.writeHead(200).write(': here\n\n'));
    await assert.rejects(
      new Sheaf({ baseUrl: url, timeout: 0.2 }).timeSeries.stream(request).final(),
      CallTimeoutError,
    );
  });
});

describe('leaving a stream', () => {
  /** A stream that goes on until its reader leaves, and the moment that the server sees it. */
  async function endless(context: Parameters<typeof serve>[0]) {
    let left: Promise<unknown> = Promise.resolve();
    const { url } = await serve(context, (response) => {
      left = once(response, 'close');
      response.writeHead(200).write(`event: progress\ndata: ${JSON.stringify(step(1))}\n\n`);
    });
    return { stream: new Sheaf({ baseUrl: url }).timeSeries.stream(request), left: () => left };
  }

  test('by leaving the loop frees the server', async (context) => {
    const { stream, left } = await endless(context);
    for await (const event of stream) if (event.type === 'progress') break;
    await left();
    await assert.rejects(stream.final(), SheafError);
  });

  test('by closing it ends a loop that waits', async (context) => {
    const { stream, left } = await endless(context);
    const kinds: string[] = [];
    for await (const event of stream) {
      kinds.push(event.type);
      setTimeout(() => void stream.close(), 10);
    }
    await left();
    assert.deepEqual(kinds, ['progress']);
    await assert.rejects(stream.final(), SheafError);
  });

  test('before it began sends nothing', async (context) => {
    const { url, received } = await serve(context, whole);
    const stream = new Sheaf({ baseUrl: url }).timeSeries.stream(request);
    await stream.close();
    await assert.rejects(stream.final(), SheafError);
    assert.equal(received.length, 0);
  });
});
