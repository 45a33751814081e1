/**
 * Server-Sent Events as typed events: the parser follows the HTML standard's line rules wherever a chunk is
 * cut; `Stream` gives the events of one request and its result.
 */
import { tooLarge } from './body.js';
import type { Deadline } from './deadline.js';
import { BadResponseError, SheafError } from './errors.js';
import type { ProgressEvent } from './generated/types.gen.js';
import { broken } from './transport.js';

/** The last event of a stream that succeeded: the response with `type` and `done`. */
export type ResultEvent<A> = A & { type: 'result'; done: true };

/**
 * What a stream yields: `P` for each step, then the result. Events of kinds that this version does not know pass
 * through as they are.
 */
export type StreamEvent<A, P extends ProgressEvent = ProgressEvent> = P | ResultEvent<A>;

/** One message of a stream, unread. */
export interface Message {
  event: string;
  data: string;
  id: string;
}

/** How a stream gets its answer, and makes events and a response of what comes. */
export interface Source<A, P> {
  /** Most characters of an event. */
  maxEvent: number;
  deadline(): Deadline;
  open(deadline: Deadline): Promise<Response>;
  readProgress(event: object): P;
  read(answer: unknown): A;
  readError(event: Record<string, unknown>): SheafError;
}

/**
 * The events of one request. Nothing is sent before the first event is asked for, and nothing is sent again
 * after the first byte of the answer. Leaving a `for await` loop closes the stream.
 *
 * @throws ProblemError The request was refused or failed, before the stream or in it.
 */
export class Stream<A, P extends ProgressEvent = ProgressEvent> implements AsyncIterable<StreamEvent<A, P>> {
  readonly #source: Source<A, P>;
  readonly #events = this.#run();
  #deadline: Deadline | undefined;
  #response: Response | undefined;
  #result: A | undefined;
  #failure: unknown;
  #closed = false;

  constructor(source: Source<A, P>) {
    this.#source = source;
  }

  [Symbol.asyncIterator](): AsyncIterator<StreamEvent<A, P>> {
    return this.#events;
  }

  /** The HTTP response that carries the events, for its status and headers; there once the first event is. */
  get response(): Response | undefined {
    return this.#response;
  }

  /** The response, after passing over the events that are left. */
  async final(): Promise<A> {
    while (!(await this.#events.next()).done);
    if (this.#result !== undefined) return this.#result;
    throw this.#failure ?? new SheafError('The stream was closed before its result.');
  }

  /** End the stream and its request; a loop over it ends too. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#deadline?.abort(new SheafError('The stream was closed.'));
    await this.#events.return(undefined);
  }

  async *#run(): AsyncGenerator<StreamEvent<A, P>, void, undefined> {
    const deadline = (this.#deadline = this.#source.deadline());
    try {
      this.#response = await this.#source.open(deadline);
      for await (const message of parseEvents(this.#response.body, this.#source.maxEvent)) {
        yield this.#read(message);
        if (this.#result !== undefined) return;
      }
      throw new BadResponseError('The stream ended without a result.');
    } catch (error) {
      if (this.#closed) return;
      this.#failure = deadline.signal.aborted ? deadline.signal.reason : wrapped(error);
      throw this.#failure;
    } finally {
      deadline.clear();
      deadline.abort(undefined);
    }
  }

  #read(message: Message): StreamEvent<A, P> {
    const { type = message.event, ...data } = parseObject(message.data);
    if (typeof type !== 'string') throw new BadResponseError('The kind of an event is no text.');
    if (type === 'error') throw this.#source.readError(data);
    if (type === 'progress') return this.#source.readProgress(data);
    if (type !== 'result') return { type, ...data } as unknown as StreamEvent<A, P>;
    const { done: _, ...answer } = data;
    this.#result = this.#source.read(answer);
    return { type, done: true, ...this.#result } as ResultEvent<A>;
  }
}

function wrapped(error: unknown): SheafError {
  return error instanceof SheafError ? error : broken(error);
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new BadResponseError('The data of an event is not JSON.', { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadResponseError('The data of an event is not an object.');
  return value as Record<string, unknown>;
}

/**
 * The messages of an event stream. A message that the stream breaks off in is dropped.
 *
 * @throws BadResponseError A message, or a line that is none, has more than `limit` characters.
 */
export async function* parseEvents(
  body: ReadableStream<Uint8Array> | null,
  limit = Infinity,
): AsyncGenerator<Message> {
  let event = '';
  let size = 0;
  let data: string[] = [];
  let id = '';
  for await (const line of lines(body, () => limit - size, limit)) {
    if (line === '') {
      if (data.length > 0) yield { event: event || 'message', data: data.join('\n'), id };
      [event, data, size] = ['', [], 0];
      continue;
    }
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) as unknown as [string, string, string?];
    if (field === 'event') event = value ?? '';
    else if (field === 'data') {
      data.push(value ?? '');
      size += line.length + 1;
    } else if (field === 'id') id = value ?? '';
  }
}

/** Lines, ended by CRLF, LF or CR; none of more characters than there is room for. */
async function* lines(
  body: ReadableStream<Uint8Array> | null,
  room: () => number,
  limit: number,
): AsyncGenerator<string> {
  // The line that is still to end. Its last pieces are joined now and then: each takes the room of an object.
  let parts: string[] = [];
  let pieces: string[] = [];
  let length = 0;
  let afterCr = false;
  for await (const chunk of chunks(body)) {
    if (chunk === '') continue;
    // A CR ends its line at once, or the last event would wait for more; an LF behind it is nothing.
    const text = afterCr && chunk.startsWith('\n') ? chunk.slice(1) : chunk;
    afterCr = chunk.endsWith('\r');
    for (const [i, piece] of text.split(/\r\n|\n|\r/).entries()) {
      if (i > 0) {
        yield [...parts, ...pieces].join('');
        [parts, pieces, length] = [[], [], 0];
      }
      if (piece === '') continue;
      pieces.push(piece);
      length += piece.length;
      if (length > room()) throw tooLarge(limit, 'An event of the stream');
      if (pieces.length < 4096) continue;
      parts.push(pieces.join(''));
      pieces = [];
    }
  }
}

async function* chunks(body: ReadableStream<Uint8Array> | null): AsyncGenerator<string> {
  if (!body) return;
  const reader = body.getReader();
  const decoder = new TextDecoder();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    yield decoder.decode(read.value, { stream: true });
  }
}
