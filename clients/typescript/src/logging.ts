/** Tells of every request that is sent and what came of it, without the secrets in it. */

/** One request, one answer to it, or its failure. */
export interface LogEntry {
  /** `debug` for what is about to happen, `info` for what came of it. */
  level: 'debug' | 'info';
  /** The entry in one line. */
  message: string;
  event: 'request' | 'response' | 'failure';
  method: string;
  url: string;
  requestId: string;
  /** 1 for the first time a call is sent. */
  attempt: number;
  /** The headers sent or received; only those that the client knows to hold no secrets have their values. */
  headers?: Record<string, string>;
  /** HTTP status of the answer. */
  status?: number;
  /** Milliseconds from the request to the head of its answer, or to its failure. */
  elapsed?: number;
  /** Why there was no answer. */
  error?: unknown;
}

/** Where the log goes: to the console from a level on, or to a function that gets every entry. */
export type Log = 'debug' | 'info' | ((entry: LogEntry) => void);

const OPEN_HEADERS = new Set([
  'accept',
  'content-encoding',
  'content-length',
  'content-type',
  'date',
  'idempotency-key',
  'retry-after',
  'server',
  'x-request-id',
  'x-sheaf-timeout',
]);

/** Headers as they may be shown: a caller's own may hold secrets under any name. */
export function shownHeaders(headers: Headers): Record<string, string> {
  return Object.fromEntries(
    [...headers].map(([name, value]) => [name, OPEN_HEADERS.has(name) ? value : '***']),
  );
}

/** The function behind a `Log`; undefined where nothing is logged. */
export function logger(log: Log | undefined): ((entry: LogEntry) => void) | undefined {
  if (log === undefined || typeof log === 'function') return log;
  return (entry) => {
    if (log === 'debug') console.debug(`sheaf: ${entry.message}`, entry.headers ?? {});
    else if (entry.level === 'info') console.info(`sheaf: ${entry.message}`);
  };
}
