/** A real HTTP server on this machine whose answers a test writes, one per request. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

import { decode, encode } from '@msgpack/msgpack';

export interface Received {
  method: string;
  path: string;
  /** The client's end, by which connections are told apart. */
  port: number | undefined;
  headers: IncomingMessage['headers'];
  body: any; // eslint-disable-line
}

export type Answer = (response: ServerResponse, request: Received) => unknown;

export interface TestServer {
  url: string;
  received: Received[];
  /** Refuse connections until `resume`. */
  pause(): Promise<void>;
  resume(): Promise<void>;
}

/** Answer the first request with the first answer and so on; the last answer serves all that follow. */
export async function serve(context: TestContext, ...answers: Answer[]): Promise<TestServer> {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk as Uint8Array);
    const sent = Buffer.concat(chunks);
    const packed = request.headers['content-type'] === 'application/msgpack';
    const body = packed ? decode(sent) : sent.length > 0 ? JSON.parse(sent.toString()) : undefined;
    const { method, url, headers, socket } = request;
    const arrived = { method: method!, path: url!, port: socket.remotePort, headers, body };
    const answer = answers[Math.min(received.length, answers.length - 1)]!;
    received.push(arrived);
    answer(response, arrived);
  });
  const listen = (port: number) =>
    new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  await listen(0);
  const { port } = server.address() as AddressInfo;
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const pause = () => new Promise<void>((resolve) => server.close(() => resolve()));
  return { url: `http://127.0.0.1:${port}`, received, pause, resume: () => listen(port) };
}

export function json(value: unknown, status = 200, headers: Record<string, string> = {}): Answer {
  return (response) => {
    const type = status < 400 ? 'application/json' : 'application/problem+json';
    response.writeHead(status, { 'Content-Type': type, ...headers }).end(JSON.stringify(value));
  };
}

/** An answer as MessagePack. */
export function packed(value: unknown): Answer {
  return (response) => response.writeHead(200, { 'Content-Type': 'application/msgpack' }).end(encode(value));
}

export function problem(
  code: string,
  status: number,
  more: object = {},
  headers: Record<string, string> = {},
): Answer {
  return json({ type: `/problems/${code}`, title: code, status, code, ...more }, status, headers);
}

/** The connection breaks before any answer. */
export const hangUp: Answer = (response) => response.socket?.destroy();

/** The same, seen by the client as ECONNRESET. */
export const reset: Answer = (response) => response.socket?.resetAndDestroy();

/** No answer ever comes. */
export const silence: Answer = () => undefined;

/** What a model answers to a forecast. */
export function forecast(request: Received['body'], more: object = {}): Record<string, unknown> {
  const { request_id, model_name, horizon, frequency } = request;
  return {
    request_id,
    model_type: 'time_series',
    model_name,
    mean: Array(horizon).fill(1),
    horizon,
    frequency,
    ...more,
  };
}

export const answerForecast: Answer = (response, { body }) =>
  json(forecast(body))(response, undefined as never);

/** Server-Sent Events, each written by itself. */
export function events(make: (body: Received['body']) => [name: string, data: unknown][]): Answer {
  return (response, { body }) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (const [name, data] of make(body))
      response.write(`event: ${name}\r\ndata: ${JSON.stringify(data)}\r\n\r\n`);
    response.end();
  };
}
