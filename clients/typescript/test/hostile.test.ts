/** The client against servers that answer with anything: bounded, typed, and no key for anybody else. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, test, type TestContext } from 'node:test';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';

import {
  ArgumentError,
  BadResponseError,
  CallTimeoutError,
  ConnectionFailedError,
  FeatureStoreError,
  OverloadedError,
  ProblemError,
  Sheaf,
  SheafError,
  type SheafOptions,
} from '../src/index.js';
import { events, forecast, json, problem, serve, type Answer } from './server.js';

const request = { model: 'chronos', history: [1, 2, 3], horizon: 2, frequency: '1h' as const };
const EVENTS = 'text/event-stream';
const LIMIT = 2 ** 20;

type Ask = (url: string, options?: SheafOptions) => Promise<unknown>;
const ask: Ask = (url, options) => new Sheaf({ baseUrl: url, ...options }).timeSeries.forecast(request);
const askStream: Ask = (url, options) =>
  new Sheaf({ baseUrl: url, ...options }).timeSeries.stream(request).final();
const FORMS: [string, Ask][] = [
  ['call', ask],
  ['stream', askStream],
];

interface Raw {
  url: string;
  asked: number;
  sent: number;
}

/** A server of raw sockets: what it sends for a request, and then without end. */
async function hostile(context: TestContext, first: string | Uint8Array, rest?: Uint8Array): Promise<Raw> {
  const raw: Raw = { url: '', asked: 0, sent: 0 };
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', async () => {
      raw.asked++;
      socket.write(first);
      while (rest && !socket.destroyed) {
        raw.sent += rest.byteLength;
        if (!socket.write(rest)) await Promise.race([once(socket, 'drain'), once(socket, 'close')]).catch(() => undefined);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  raw.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return raw;
}

async function refused<E extends SheafError>(
  asking: Promise<unknown>,
  kind: new (...args: never[]) => E,
): Promise<E> {
  const error = await asking.then(
    () => assert.fail('answered'),
    (error: unknown) => error,
  );
  assert.ok(error instanceof kind, `${error}`);
  return error;
}

function head(fields: Record<string, string | number> = {}, status = '200 OK'): string {
  const lines = Object.entries({ 'content-type': 'application/json', ...fields });
  return `HTTP/1.1 ${status}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
}

const spaces = Buffer.alloc(65_536, ' ');
const chunk = Buffer.concat([Buffer.from('10000\r\n'), spaces, Buffer.from('\r\n')]);

describe('an answer without end is bounded', () => {
  for (const [name, first, rest] of [
    ['of a length', head({ 'content-length': 2 ** 50 }), spaces],
    ['of chunks', head({ 'transfer-encoding': 'chunked' }), chunk],
    ['until closed', head({ connection: 'close' }), spaces],
    ['of an error', head({ 'transfer-encoding': 'chunked' }, '503 Busy'), chunk],
  ] as const) {
    test(name, async (context) => {
      const raw = await hostile(context, first, rest);
      const error = await refused(ask(raw.url, { maxAnswerBytes: LIMIT }), BadResponseError);
      assert.match(error.message, /larger than 1048576 bytes.*maxAnswerBytes/);
      assert.equal(raw.asked, 1);
      assert.ok(raw.sent < LIMIT + 16 * 2 ** 20);
    });
  }

  test('to the byte, and by an option', async (context) => {
    const { url } = await serve(context, (response, { body }) => json(forecast(body))(response, undefined as never));
    const sample = { ...request, model_name: 'chronos', request_id: '0'.repeat(36) };
    const size = JSON.stringify(forecast(sample)).length;
    await ask(url, { maxAnswerBytes: size });
    await ask(url, { maxAnswerBytes: Infinity });
    await refused(ask(url, { maxAnswerBytes: size - 1 }), BadResponseError);
    for (const wrong of [0, -1, 1.5, NaN, '1'])
      assert.throws(() => new Sheaf({ maxAnswerBytes: wrong as number }), ArgumentError);
  });

  for (const [encoding, pack] of Object.entries({ gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync })) {
    for (const [form, asking] of FORMS) {
      test(`packed by ${encoding}, in a ${form}`, async (context) => {
        const bomb = pack(Buffer.alloc(64 * LIMIT, ' '));
        const headers = { 'Content-Type': form === 'call' ? 'application/json' : EVENTS, 'Content-Encoding': encoding };
        const { url } = await serve(context, (response) => response.writeHead(200, headers).end(bomb));
        const error = await refused(asking(url, { maxAnswerBytes: LIMIT }), BadResponseError);
        assert.match(error.message, /maxAnswerBytes/);
      });
    }
  }

  for (const [name, first, rest] of [
    ['a line', 'data: ', 'a'.repeat(65_536)],
    ['a comment', ': ', 'a'.repeat(65_536)],
    ['an event', 'data: ', 'data: aaaa\n'.repeat(4096)],
    ['empty data', 'event: a\n', 'data\n'.repeat(4096)],
  ] as const) {
    test(`of ${name} in a stream`, async (context) => {
      const raw = await hostile(context, head({ 'content-type': EVENTS, connection: 'close' }) + first, Buffer.from(rest));
      const error = await refused(askStream(raw.url, { maxAnswerBytes: LIMIT }), BadResponseError);
      assert.match(error.message, /An event of the stream.*maxAnswerBytes/);
      assert.ok(raw.sent < LIMIT + 16 * 2 ** 20);
    });
  }

  for (const [form, asking] of FORMS) {
    test(`of a head, in a ${form}`, async (context) => {
      for (const [first, rest] of [
        ['HTTP/1.1 200 OK\r\n', 'x-a: b\r\n'.repeat(500)],
        ['HTTP/1.1 200 OK\r\nx-a: ', 'b'.repeat(4096)],
      ] as const) {
        const raw = await hostile(context, first, Buffer.from(rest));
        const error = await refused(asking(raw.url), BadResponseError);
        assert.match(error.message, /HTTP/);
        assert.equal(raw.asked, 1);
      }
    });

    test(`that trickles ends with the time of the ${form}`, async (context) => {
      const { url } = await serve(context, (response) => {
        response.writeHead(200, { 'Content-Type': form === 'call' ? 'application/json' : EVENTS });
        const timer = setInterval(() => response.write(form === 'call' ? ' ' : ': here\n\n'), 5);
        response.on('close', () => clearInterval(timer));
      });
      await refused(asking(url, { timeout: 0.3 }), CallTimeoutError);
    });
  }
});

describe('a broken answer is typed', () => {
  const body = (content: string | Uint8Array, type = 'application/json', status = '200 OK') =>
    Buffer.concat([Buffer.from(head({ 'content-type': type, 'content-length': content.length }, status)), Buffer.from(content)]);
  for (const [name, sent, kind] of [
    ['cut JSON', body('{"mean": [1'), BadResponseError],
    ['cut MessagePack', body(Buffer.from([0x81, 0xa4]), 'application/msgpack'), BadResponseError],
    ['a byte that MessagePack lacks', body(Buffer.from([0xc1]), 'application/msgpack'), BadResponseError],
    ['nothing', body(''), BadResponseError],
    ['a page', body('<html>hello', 'text/html'), BadResponseError],
    ['JSON as MessagePack', body('{}', 'application/msgpack'), BadResponseError],
    ['deep JSON', body('{"mean":' + '['.repeat(400_000) + ']'.repeat(400_000) + '}'), BadResponseError],
    ['deep MessagePack', body(Buffer.alloc(500_000, 0x91), 'application/msgpack'), BadResponseError],
    ['lists that say to hold gigabytes', body(Buffer.from('dd00ffffff'.repeat(90), 'hex'), 'application/msgpack'), BadResponseError],
    ['a number without end', body('{"mean": [' + '9'.repeat(900_000) + ']}'), BadResponseError],
    ['a status that is none', head({ 'content-length': 0 }, '999 What'), SheafError],
    ['not modified', head({ 'content-length': 0 }, '304 Not Modified'), BadResponseError],
    ['a chunk that is none', head({ 'transfer-encoding': 'chunked' }) + 'zz\r\n{}', BadResponseError],
    ['another protocol', 'SSH-2.0-OpenSSH_9.6\r\n\r\n', BadResponseError],
    ['no gzip', head({ 'content-encoding': 'gzip', 'content-length': 15 }) + 'this is no gzip', BadResponseError],
  ] as const) {
    test(name, async (context) => {
      const raw = await hostile(context, sent);
      await refused(ask(raw.url, { timeout: 20 }), kind);
      assert.equal(raw.asked, 1);
    });
  }

  test('that is shorter than it says', async (context) => {
    const { url } = await serve(context, (response) => {
      response.writeHead(200, { 'Content-Length': 100 }).write('{}');
      response.socket?.end();
    });
    await refused(ask(url), ConnectionFailedError);
  });

  for (const [form, asking] of FORMS) {
    test(`as a page of a proxy, in a ${form}`, async (context) => {
      const page: Answer = (response) => response.writeHead(200, { 'Content-Type': 'text/html; a=b' }).end('<html>');
      const { url } = await serve(context, page);
      assert.match((await refused(asking(url), BadResponseError)).message, /text\/html/);
      const failing = await serve(context, (response) => response.writeHead(502).end('<html>secret'));
      const error = await refused(asking(failing.url), ProblemError);
      assert.ok(!(error instanceof FeatureStoreError));
      assert.deepEqual([error.status, error.message], [502, 'HTTP 502 from something that is not Sheaf.']);
    });

    test(`with duplicate members is read as its last, in a ${form}`, async (context) => {
      const { url } = await serve(context, (response, { body: asked }) => {
        const told = '{"request_id": "no", ' + JSON.stringify(forecast(asked, { type: 'result' })).slice(1);
        response.writeHead(200, { 'Content-Type': form === 'call' ? 'application/json' : EVENTS });
        response.end(form === 'call' ? told : `data: ${told}\n\n`);
      });
      assert.deepEqual(((await asking(url)) as { mean: number[] }).mean, [1, 1]);
    });
  }
});

describe('names of members change no prototype', () => {
  const wild = '{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}, ';
  const clean = () => assert.equal(({} as { polluted?: unknown }).polluted, undefined);

  test('of an answer', async (context) => {
    const { url } = await serve(context, (response, { body }) => {
      const told = wild + JSON.stringify(forecast(body)).slice(1);
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(told);
    });
    const answer = (await ask(url)) as { polluted?: unknown };
    assert.equal(answer.polluted, undefined);
    assert.equal(Object.getPrototypeOf(answer), Object.prototype);
    clean();
  });

  test('of events', async (context) => {
    const { url } = await serve(context, (response, { body }) => {
      response.writeHead(200, { 'Content-Type': EVENTS });
      response.write(`data: ${wild} "type": "__proto__", "a": 1}\n\n`);
      response.write(`data: ${wild} "type": "progress", "step": 1, "total_steps": 2, "done": false}\n\n`);
      response.end(`data: ${wild} "type": "result", ${JSON.stringify(forecast(body)).slice(1)}\n\n`);
    });
    for await (const event of new Sheaf({ baseUrl: url }).timeSeries.stream(request))
      assert.equal((event as { polluted?: unknown }).polluted, undefined);
    clean();
  });

  for (const code of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    test(`of a problem by the code ${code}`, async (context) => {
      const { url } = await serve(context, problem(code, 503, { retry_after: 3600 }));
      await refused(ask(url), OverloadedError);
      const batch = await serve(context, json({ responses: [{ type: '', title: '', status: 503, code }] }));
      const [error] = await new Sheaf({ baseUrl: batch.url }).timeSeries.forecastMany([request]);
      assert.ok(error instanceof OverloadedError);
    });
  }
});

describe('a stream', () => {
  for (const end of ['\n', '\r', '\r\n']) {
    test(`is read however it is cut, with ${JSON.stringify(end)}`, async (context) => {
      const { url } = await serve(context, async (response, { body }) => {
        const told =
          '\ufeffid: 1\0\nretry: x\nnonsense\n: grüße\n\nevent: später\ndata: {"a": "日本"}\n\n' +
          `data: ${JSON.stringify({ ...forecast(body), type: 'result', done: true })}\n\n`;
        response.writeHead(200, { 'Content-Type': EVENTS });
        response.socket?.setNoDelay(true);
        // Nothing comes behind the result, and the connection stays.
        for (const byte of Buffer.from(told.replaceAll('\n', end))) response.write(Buffer.of(byte));
      });
      const kinds: unknown[] = [];
      for await (const event of new Sheaf({ baseUrl: url }).timeSeries.stream(request)) kinds.push(event.type);
      assert.deepEqual(kinds, ['später', 'result']);
    });
  }

  test('ends with its first result', async (context) => {
    const { url } = await serve(
      context,
      events((body) => [
        ['result', { ...forecast(body), type: 'result', done: true }],
        ['result', { ...forecast(body), type: 'result', done: true, mean: [2, 2] }],
        ['progress', 3],
      ]),
    );
    assert.deepEqual(((await askStream(url)) as { mean: number[] }).mean, [1, 1]);
  });

  for (const data of ['', 'data: {\n\n', `data: ${'['.repeat(100_000)}\n\n`, 'data: {"type": []}\n\n', 'data: 1\n\n']) {
    test(`without a result is a bad response: ${data.slice(0, 20)}`, async (context) => {
      const { url } = await serve(context, (response) => response.writeHead(200, { 'Content-Type': EVENTS }).end(data));
      await refused(askStream(url), BadResponseError);
    });
  }
});

describe('keys go to no other server', () => {
  for (const [form, asking] of FORMS) {
    for (const status of [300, 301, 302, 303, 307, 308]) {
      test(`by ${status} in a ${form}`, async (context) => {
        const other = await serve(context, (response) => response.end());
        const Location = `${other.url.replace('//', '//user:secret@')}/m/predict`;
        const { url } = await serve(context, (response) => response.writeHead(status, { Location }).end());
        const options = { apiKey: 'k', headers: { 'x-api-key': 'k' } };
        const middleware = [(sent: Request, next: (sent: Request) => Promise<Response>) => next(sent)];
        for (const more of [{}, { middleware }]) {
          const error = await refused(asking(url, { ...options, ...more }), BadResponseError);
          assert.ok(error.message.includes(other.url.slice('http://'.length)));
          assert.doesNotMatch(error.message, /secret/);
          assert.match(error.message, /baseUrl/);
        }
        assert.equal(other.received.length, 0);
      });
    }
  }
});

describe('a server that asks to wait', () => {
  for (const wait of ['601', '1000000000', 'Fri, 01 Jan 2100 00:00:00 GMT']) {
    test(`for long, ${wait}, is not waited for`, async (context) => {
      const { url, received } = await serve(context, problem('overloaded', 503, {}, { 'Retry-After': wait }));
      await refused(ask(url, { timeout: 86_400 }), OverloadedError);
      assert.equal(received.length, 1);
    });
  }

  for (const wait of ['-5', 'NaN', '1e9', '0x10', 'soon']) {
    test(`for no time, ${wait}, is asked again in the client's own`, async (context) => {
      const { url, received } = await serve(context, problem('overloaded', 503, {}, { 'Retry-After': wait }), (response, { body }) =>
        json(forecast(body))(response, undefined as never),
      );
      await ask(url);
      assert.equal(received.length, 2);
    });
  }
});

describe('an error', () => {
  for (const body of ['[]', 'null', '"no"', '7', '{}', '['.repeat(100_000), '{"retry_after": 1e999}']) {
    test(`of another shape keeps its status: ${body.slice(0, 20)}`, async (context) => {
      const { url } = await serve(context, (response) =>
        response.writeHead(500, { 'Content-Type': 'application/problem+json' }).end(body),
      );
      const error = await refused(ask(url), ProblemError);
      assert.deepEqual([error.status, error.code], [500, 'http_500']);
    });
  }

  test('is short and steers nothing', async (context) => {
    const wild = '\x1b[2J\0\r\nforged line\u202e\u2028';
    const fault = { code: wild, path: wild, message: wild.repeat(10_000) };
    const more = { detail: wild + 'a'.repeat(10_000_000), request_id: wild.repeat(999), errors: Array(50).fill(fault) };
    const { url } = await serve(context, problem('internal', 500, more));
    const error = await refused(ask(url), ProblemError);
    assert.ok(error.message.length < 100_000);
    assert.ok(error.message.includes('\\x1b[2J\\x00\\r\\nforged line\\u202e\\u2028'));
    assert.match(error.message, /\(10000\d+ characters\)/);
    assert.match(error.message, /and 30 more/);
    assert.doesNotMatch(error.message.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\p{Zl}]/u);
    assert.equal(error.detail, more.detail);
  });
});
