/**
 * Carries one exchange over fetch: headers, a deadline over all attempts, and retries. Nothing here knows
 * what a model is.
 */
import {
  BadResponseError,
  CallTimeoutError,
  ConnectionFailedError,
  ProblemError,
  SheafError,
} from './errors.js';
import { readProblem } from './problem.js';

/** Options of one call. */
export interface CallOptions {
  /** Seconds to wait for the answer, retries included. */
  timeout?: number;
  /** How often a call is sent again after a failed connection, 429 or 503. */
  maxRetries?: number;
  /** Headers for this call alone. */
  headers?: Record<string, string>;
  /** Ends the call early; the call then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** How a transport reaches its server. */
export interface TransportOptions {
  baseUrl: string;
  apiKey?: string | undefined;
  timeout: number;
  maxRetries: number;
  headers: Record<string, string>;
  fetch: typeof fetch;
}

/** What is sent, independent of where and how often. */
export interface Exchange {
  path: string;
  requestId: string;
  /** Sent as JSON by POST; without one the exchange is a GET. */
  body?: unknown;
  accept?: string;
}

const LONGEST_TIMEOUT = 86_400;
const LONGEST_PAUSE = 8;

export class Transport {
  constructor(private readonly options: TransportOptions) {}

  /** Send an exchange and read the JSON of its answer. */
  async json(exchange: Exchange, options: CallOptions = {}): Promise<unknown> {
    const deadline = this.deadline(options);
    try {
      const response = await this.open(exchange, options, deadline);
      return parse(await read(response, deadline));
    } finally {
      deadline.clear();
    }
  }

  /** Send an exchange until it is answered, and hand over the answer unread; the deadline goes on. */
  async open(exchange: Exchange, options: CallOptions, deadline: Deadline): Promise<Response> {
    const retries = options.maxRetries ?? this.options.maxRetries;
    for (let attempt = 0; ; attempt++) {
      const answer = await this.attempt(exchange, options, deadline);
      if ('ok' in answer && answer.ok) return answer;
      const { failure, again, hint } =
        'ok' in answer ? await refusal(answer, deadline) : { failure: answer, again: true };
      const wait = pause(attempt, hint);
      if (!again || attempt >= retries || wait >= deadline.remaining) throw failure;
      await deadline.sleep(wait);
    }
  }

  deadline(options: CallOptions): Deadline {
    return new Deadline(options.timeout ?? this.options.timeout, options.signal);
  }

  private async attempt(
    exchange: Exchange,
    options: CallOptions,
    deadline: Deadline,
  ): Promise<Response | ConnectionFailedError> {
    const { baseUrl, fetch } = this.options; // a browser's own fetch must not be called as a method
    const message = this.message(exchange, options, deadline);
    try {
      return await fetch(baseUrl + exchange.path, message);
    } catch (cause) {
      deadline.signal.throwIfAborted();
      return new ConnectionFailedError(`No answer from ${baseUrl}.`, { cause });
    }
  }

  private message(exchange: Exchange, options: CallOptions, deadline: Deadline): RequestInit {
    const headers = new Headers({
      Accept: exchange.accept ?? 'application/json',
      'X-Request-ID': exchange.requestId,
      'X-Sheaf-Timeout': Math.min(Math.max(deadline.remaining, 0.001), LONGEST_TIMEOUT).toFixed(3),
    });
    if (this.options.apiKey) headers.set('Authorization', `Bearer ${this.options.apiKey}`);
    const posted = exchange.body !== undefined;
    if (posted) {
      headers.set('Content-Type', 'application/json');
      headers.set('Idempotency-Key', exchange.requestId);
    }
    for (const [name, value] of Object.entries({ ...this.options.headers, ...options.headers }))
      headers.set(name, value);
    const { signal } = deadline;
    return posted
      ? { method: 'POST', headers, signal, body: JSON.stringify(exchange.body) }
      : { headers, signal };
  }
}

/** The end of a call in time: one for all its attempts. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #end: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #leave: () => void;

  constructor(seconds: number, outer?: AbortSignal) {
    if (!(seconds > 0 && seconds <= LONGEST_TIMEOUT)) {
      throw new SheafError(`A timeout is above 0 and at most ${LONGEST_TIMEOUT} seconds; ${seconds} given.`);
    }
    this.#end = performance.now() + seconds * 1000;
    const late = () => this.abort(new CallTimeoutError(`No complete answer within ${seconds} s.`));
    this.#timer = setTimeout(late, seconds * 1000);
    const forward = () => this.abort(outer?.reason);
    outer?.addEventListener('abort', forward);
    this.#leave = () => outer?.removeEventListener('abort', forward);
    if (outer?.aborted) forward();
  }

  /** Aborts with the reason that the call shall reject with. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Seconds left. */
  get remaining(): number {
    return (this.#end - performance.now()) / 1000;
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#leave();
  }

  /** Wait for some seconds, or reject as soon as the signal aborts. */
  sleep(seconds: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = () => {
        clearTimeout(timer);
        reject(this.signal.reason);
      };
      const timer = setTimeout(() => {
        this.signal.removeEventListener('abort', stop);
        resolve();
      }, seconds * 1000);
      this.signal.addEventListener('abort', stop, { once: true });
    });
  }
}

/** Seconds before the next attempt: doubling and spread, or a little more than the server asks for. */
function pause(attempt: number, hint?: number): number {
  const own = Math.min(0.25 * 2 ** attempt, LONGEST_PAUSE) * (0.5 + Math.random() / 2);
  return hint === undefined ? own : hint + own / 4;
}

async function read(response: Response, deadline: Deadline): Promise<string> {
  try {
    return await response.text();
  } catch (cause) {
    deadline.signal.throwIfAborted();
    throw new ConnectionFailedError('The connection broke before the answer was complete.', { cause });
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new BadResponseError('The answer is not JSON.', { cause });
  }
}

interface Refusal {
  failure: SheafError;
  /** Whether the same exchange may succeed later. */
  again: boolean;
  /** Seconds that the server asks to wait. */
  hint?: number | undefined;
}

async function refusal(response: Response, deadline: Deadline): Promise<Refusal> {
  const otherwise = `The server answered ${response.status} without a problem document.`;
  const text = await read(response, deadline);
  const failure = readProblem(text.startsWith('{') ? parse(text) : undefined, otherwise);
  const again =
    failure instanceof ProblemError ? failure.retryable : response.status === 429 || response.status === 503;
  const told = failure instanceof ProblemError ? failure.retryAfter : null;
  return { failure, again, hint: told ?? seconds(response.headers.get('Retry-After')) };
}

/** The seconds of a Retry-After header, which holds them or a date. */
function seconds(header: string | null): number | undefined {
  if (header === null) return undefined;
  const wait = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(wait) ? undefined : Math.max(wait, 0);
}
