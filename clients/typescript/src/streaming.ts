/**
 * Server-Sent Events as typed events: the parser follows the HTML standard's line rules wherever a chunk is
 * cut; `Stream` gives the events of one request and its result.
 */
import type { Deadline } from './deadline.js';
import { BadResponseError, ConnectionFailedError, SheafError } from './errors.js';
import type { ProgressEvent } from './generated/types.gen.js';

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
      for await (const message of parseEvents(this.#response.body)) {
        yield this.#read(message);
        if (this.#result !== undefined) return;
      }
      throw new ConnectionFailedError('The stream ended before its result.');
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
    if (type === 'error') throw this.#source.readError(data);
    if (type === 'progress') return this.#source.readProgress(data);
    if (type !== 'result') return { type, ...data } as unknown as StreamEvent<A, P>;
    const { done: _, ...answer } = data;
    this.#result = this.#source.read(answer);
    return { type, done: true, ...this.#result } as ResultEvent<A>;
  }
}

function wrapped(error: unknown): SheafError {
  return error instanceof SheafError
    ? error
    : new ConnectionFailedError('The stream broke.', { cause: error });
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

/** The messages of an event stream. A message that the stream breaks off in is dropped. */
export async function* parseEvents(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Message> {
  let event = '';
  let data: string[] = [];
  let id = '';
  for await (const line of lines(body)) {
    if (line === '') {
      if (data.length > 0) yield { event: event || 'message', data: data.join('\n'), id };
      [event, data] = ['', []];
      continue;
    }
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) as unknown as [string, string, string?];
    if (field === 'event') event = value ?? '';
    else if (field === 'data') data.push(value ?? '');
    else if (field === 'id') id = value ?? '';
  }
}

/** Lines, ended by CRLF, LF or CR. */
async function* lines(body: ReadableStream<Uint8Array> | null): AsyncGenerator<string> {
  let line = '';
  let held = '';
  for await (const chunk of chunks(body)) {
    const text = held + chunk;
    // A CR at the end may be the first half of a CRLF.
    held = text.endsWith('\r') ? '\r' : '';
    const [first, ...rest] = text.slice(0, text.length - held.length).split(/\r\n|\n|\r/) as [
      string,
      ...string[],
    ];
    line += first;
    for (const next of rest) {
      yield line;
      line = next;
    }
  }
  if (held) yield line;
}

async function* chunks(body: ReadableStream<Uint8Array> | null): AsyncGenerator<string> {
  if (!body) return;
  const reader = body.getReader();
  const decoder = new TextDecoder();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    yield decoder.decode(read.value, { stream: true });
  }
}
