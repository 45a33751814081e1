/**
 * Carries one exchange over fetch: headers, a deadline over all attempts, retries, middleware and the log.
 * Nothing here knows what a model is.
 */
import type { WithResponse } from './answer.js';
import { LONGEST_TIMEOUT, readHeaders, readOptions, readRetries } from './arguments.js';
import { readBody } from './body.js';
import { fromContent, JSON_TYPE, type Content } from './content.js';
import { Deadline } from './deadline.js';
import { BadResponseError, ConnectionFailedError, type SheafError, type TransportError } from './errors.js';
import { shownHeaders, type LogEntry } from './logging.js';
import { printable } from './printable.js';
import { readRefusal } from './problem.js';
import { waitBefore } from './retries.js';

/** Options of one call. */
export interface CallOptions {
  /** Seconds to wait for the answer, retries included. */
  timeout?: number;
  /**
   * How often a call is sent again after a connection that could not be made, 408, 429, 502 or 503; once of these
   * also after a connection that broke before its answer began.
   */
  maxRetries?: number;
  /** Headers for this call alone. */
  headers?: Record<string, string>;
  /** Ends the call early; the call then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/**
 * Stands between the client and the network, for every request that is sent, each retry included: it may change
 * the request, call `next` for the answer, or answer by itself. Its own errors reject the call as they are.
 */
export type Middleware = (
  request: Request,
  next: (request: Request) => Promise<Response>,
) => Promise<Response>;

/** How a transport reaches its server. */
export interface TransportOptions {
  baseUrl: string;
  apiKey?: string | undefined;
  timeout: number;
  maxRetries: number;
  /** Of an answer, or of one event of a stream. */
  maxAnswerBytes: number;
  headers: Record<string, string>;
  fetch: typeof fetch;
  /** The first is the outermost. */
  middleware: readonly Middleware[];
  log?: ((entry: LogEntry) => void) | undefined;
}

/** What is sent, independent of where and how often. */
export interface Exchange {
  path: string;
  requestId: string;
  /** Sent by POST; without one the exchange is a GET. */
  content?: Content;
  accept?: string;
}

/** Each name that an option of a call has. */
const CALL_OPTIONS: Record<keyof CallOptions, true> = { timeout: true, maxRetries: true, headers: true, signal: true };

export class Transport {
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  get maxAnswerBytes(): number {
    return this.#options.maxAnswerBytes;
  }

  /** Send an exchange and read its answer. */
  async send(exchange: Exchange, options: CallOptions = {}): Promise<WithResponse<unknown>> {
    const deadline = this.deadline(options);
    try {
      const response = await this.open(exchange, options, deadline);
      const data = await this.#read(response, deadline);
      return { data: fromContent(response.headers.get('Content-Type'), data), response };
    } finally {
      deadline.clear();
    }
  }

  /** Send an exchange until it is answered, and hand over the answer unread; the deadline goes on. */
  async open(exchange: Exchange, options: CallOptions, deadline: Deadline): Promise<Response> {
    const retries = readRetries(options.maxRetries ?? this.#options.maxRetries);
    let repeated = false;
    for (let attempt = 0; ; attempt++) {
      const answer = await this.#attempt(exchange, options, deadline, attempt + 1);
      if ('ok' in answer && answer.ok) return answer;
      const { failure, asked } =
        'ok' in answer ? await this.#refusal(answer, deadline) : { failure: answer, asked: undefined };
      const wait = attempt < retries ? waitBefore(failure, attempt, { asked, repeated }) : undefined;
      if (wait === undefined || wait >= deadline.remaining) throw failure;
      repeated ||= failure instanceof ConnectionFailedError && failure.unanswered;
      await deadline.sleep(wait);
    }
  }

  /** Begin the time of a call; here its options are looked at first. */
  deadline(options: CallOptions): Deadline {
    readOptions(options, CALL_OPTIONS, 'an object of options of the call');
    return new Deadline(options.timeout ?? this.#options.timeout, options.signal);
  }

  async #attempt(
    exchange: Exchange,
    options: CallOptions,
    deadline: Deadline,
    attempt: number,
  ): Promise<Response | ConnectionFailedError> {
    const url = this.#options.baseUrl + exchange.path;
    const message = this.#message(exchange, options, deadline);
    const { method, headers } = message;
    const about = { method, url, requestId: exchange.requestId, attempt };
    const line = `${method} ${url} ${exchange.requestId}`;
    const began = performance.now();
    const tell = (entry: Pick<LogEntry, 'level' | 'event' | 'message' | 'headers' | 'status' | 'error'>) => {
      const elapsed = entry.event === 'request' ? {} : { elapsed: performance.now() - began };
      this.#options.log?.({ ...about, ...elapsed, ...entry });
    };
    tell({ level: 'debug', event: 'request', message: line, headers: shownHeaders(headers) });
    try {
      const response = await this.#fetch(url, message, deadline);
      const { status } = response;
      const shown = shownHeaders(response.headers);
      tell({ level: 'info', event: 'response', message: `${line} ${status}`, status, headers: shown });
      return response;
    } catch (error) {
      tell({ level: 'info', event: 'failure', message: `${line} failed`, error });
      if (error instanceof ConnectionFailedError) return error;
      throw error;
    }
  }

  async #fetch(url: string, message: RequestInit, deadline: Deadline): Promise<Response> {
    const { fetch, middleware } = this.#options; // a browser's own fetch must not be called as a method
    const reach = async (...request: Parameters<typeof fetch>) => {
      try {
        return await fetch(...request);
      } catch (cause) {
        deadline.signal.throwIfAborted();
        if (failedAs(NO_HTTP, cause))
          throw new BadResponseError(`${this.#options.baseUrl} does not answer by HTTP.`, { cause });
        const told = { cause, unsent: failedBy(NEVER_MADE, cause), unanswered: failedBy(BROKEN, cause) };
        throw new ConnectionFailedError(`No answer from ${this.#options.baseUrl}. ${HINT}`, told);
      }
    };
    if (middleware.length === 0) return reach(url, message);
    const chain = middleware.reduceRight<(request: Request) => Promise<Response>>(
      (next, layer) => (request) => layer(request, next),
      (request) => reach(request),
    );
    return chain(new Request(url, message));
  }

  #message(exchange: Exchange, options: CallOptions, deadline: Deadline) {
    const headers = new Headers({
      Accept: exchange.accept ?? JSON_TYPE,
      'X-Request-ID': exchange.requestId,
      'X-Sheaf-Timeout': Math.min(Math.max(deadline.remaining, 0.001), LONGEST_TIMEOUT).toFixed(3),
    });
    const { apiKey } = this.#options;
    if (apiKey) headers.set('Authorization', `Bearer ${apiKey}`);
    const { content } = exchange;
    if (content) {
      headers.set('Content-Type', content.type);
      headers.set('Idempotency-Key', exchange.requestId);
    }
    for (const [name, value] of Object.entries({ ...this.#options.headers, ...readHeaders(options.headers ?? {}) }))
      headers.set(name, value);
    const { signal } = deadline;
    // A redirect would take data, and headers of the caller's, to another server.
    const redirect = 'manual' as const;
    return content
      ? { method: 'POST', headers, signal, redirect, body: content.data }
      : { method: 'GET', headers, signal, redirect };
  }

  async #read(response: Response, deadline: Deadline): Promise<Uint8Array<ArrayBuffer>> {
    try {
      return await readBody(response, this.#options.maxAnswerBytes);
    } catch (cause) {
      if (cause instanceof BadResponseError) throw cause;
      deadline.signal.throwIfAborted();
      throw broken(cause);
    }
  }

  async #refusal(response: Response, deadline: Deadline): Promise<Refusal> {
    const { status, headers } = response;
    const read = await this.#read(response, deadline);
    if (!(status >= 400 && status <= 599)) return { failure: noAnswer(response) };
    const failure = readRefusal(readable(response, read), status);
    return { failure, asked: failure.retryAfter ?? secondsOf(headers.get('Retry-After')) };
  }
}

/** What may be wrong where nothing came; a page is not told more. */
const HINT =
  'location' in globalThis
    ? 'Is a server there, and does it let this page call it (`sheaf serve … --allow-origin`)?'
    : 'Is a server there? `sheaf serve` starts one; `baseUrl` or SHEAF_BASE_URL says where it is.';

/** Codes of Node.js for connections that were never made. */
const NEVER_MADE = new Set([
  'EADDRNOTAVAIL',
  'EAI_AGAIN',
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/**
 * Codes of Node.js for connections that broke. Where fetch itself fails by one, no answer has begun: most often the
 * server closed a kept connection just as the request went out, and never saw it. Such a call is sent again at once,
 * and once only, so that a request that kills its server is not sent on and on. A connection that breaks later is not
 * made again: the model may be at work by then, and a second run would double the load of a server that is slow
 * already.
 */
const BROKEN = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET']);

/** Codes of Node.js where something came that breaks HTTP/1.1. */
const NO_HTTP = /^(HPE_|UND_ERR_HEADERS_OVERFLOW$)/;

/** Codes of Node.js for content that is not packed as its head says. */
const PACKING = /^(Z_|ERR_BROTLI_|ERR__ERROR_FORMAT|ERR_ZSTD_)/;

function codeOf(failure: unknown): string {
  const { code } = ((failure as { cause?: unknown } | null)?.cause ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : '';
}

/** Whether a fetch failed by one of these codes. */
function failedBy(codes: ReadonlySet<string>, failure: unknown): boolean {
  return codes.has(codeOf(failure));
}

function failedAs(codes: RegExp, failure: unknown): boolean {
  return codes.test(codeOf(failure));
}

/** What a connection that breaks within an answer rejects with. */
export function broken(cause: unknown): TransportError {
  return failedAs(PACKING, cause)
    ? new BadResponseError('The answer cannot be unpacked.', { cause })
    : failedAs(NO_HTTP, cause)
      ? new BadResponseError('What answers does not keep to HTTP.', { cause })
      : new ConnectionFailedError('The connection broke before the answer was complete.', { cause });
}

interface Refusal {
  failure: SheafError;
  /** Seconds that the server asks to wait. */
  asked?: number | undefined;
}

function noAnswer(response: Response): BadResponseError {
  const { status, headers, type } = response;
  const location = headers.get('Location');
  const redirect = type === 'opaqueredirect' || (location !== null && status >= 300 && status < 400);
  if (!redirect) return new BadResponseError(`HTTP ${status} is no answer to a call.`);
  // A page is told neither the status nor where it leads.
  const told = status === 0 ? 'A redirect' : `HTTP ${status}`;
  const where = location === null ? 'elsewhere' : printable(withoutSecrets(location), 200);
  return new BadResponseError(
    `${told} is no answer to a call: it leads to ${where}. Redirects are not followed, so that keys and data go to ` +
      'no other server; `baseUrl` says where the server is.',
  );
}

/** A URL without user and password. */
function withoutSecrets(url: string): string {
  return url.replace(/^([a-z][a-z0-9+.-]*:)?\/\/[^/]*@/i, '$1//');
}

/** The value in an answer; undefined where a proxy, say, answered with something else. */
function readable(response: Response, data: Uint8Array<ArrayBuffer>): unknown {
  try {
    return fromContent(response.headers.get('Content-Type'), data);
  } catch {
    return undefined;
  }
}

const DATE = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/** The seconds of a Retry-After header, which holds them or a date; undefined where it holds neither. */
function secondsOf(header: string | null): number | undefined {
  if (header === null) return undefined;
  if (/^\d{1,15}$/.test(header)) return Number(header);
  const wait = DATE.test(header) ? (Date.parse(header) - Date.now()) / 1000 : NaN;
  return Number.isNaN(wait) ? undefined : Math.max(wait, 0);
}
