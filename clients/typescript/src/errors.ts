/**
 * The roots of the error tree; one class per problem code is generated into `generated/errors.gen.ts`.
 * Everything this library raises on purpose is a `SheafError`.
 */
import type { Fault } from './generated/types.gen.js';
import { printable } from './printable.js';

/** Anything this library raises on purpose. */
export class SheafError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An argument of a client or of a call that cannot be used; the text says which, and shows no secret. */
export class ArgumentError extends SheafError {}

/** The client selects LoRA adapters, and the operation that was called takes none. */
export class AdaptersNotSupportedError extends SheafError {}
/** @deprecated `AdaptersNotSupportedError` */
export const AdaptersNotTakenError = AdaptersNotSupportedError;
/** @deprecated `AdaptersNotSupportedError` */
export type AdaptersNotTakenError = AdaptersNotSupportedError;

/** No answer came: the server could not be reached, or the connection broke. */
export class TransportError extends SheafError {
  constructor(message: string, options?: { cause?: unknown }) {
    super(printable(message), options);
  }
}

/**
 * The connection could not be made or broke before the answer was complete. Where a call was tried several times,
 * this is about its last try.
 */
export class ConnectionFailedError extends TransportError {
  /** Whether nothing of the request can have reached the server; never known in a page, which is told nothing. */
  readonly unsent: boolean;
  /**
   * Whether the connection was made, and broke before the status and headers of an answer had come. The request may
   * have reached the server; never known in a page.
   */
  readonly unanswered: boolean;

  constructor(message: string, options: { cause?: unknown; unsent?: boolean; unanswered?: boolean } = {}) {
    super(message, options);
    this.unsent = options.unsent ?? false;
    this.unanswered = options.unanswered ?? false;
  }
}

/** The caller's own time limit passed before the answer was complete. */
export class CallTimeoutError extends TransportError {}

/** Something answered, but not with what the contract says. */
export class BadResponseError extends TransportError {}

/** What a problem says beside its detail. */
export interface ProblemDetails {
  code?: string;
  status?: number;
  errors?: Fault[];
  requestId?: string | null;
  retryAfter?: number | null;
}

/** Most faults that the text of an error shows. */
const MAX_FAULTS = 20;

/**
 * A request was refused or failed, with what the problem document says about it. The members are as the server sent
 * them; the message is cut where they are long, and shows control characters as escapes.
 */
export class ProblemError extends SheafError {
  static readonly code: string = 'internal';
  static readonly status: number = 500;
  static readonly title: string = 'Problem';
  static readonly retryable: boolean = false;

  /** Stable identifier of the kind of problem. */
  readonly code: string;
  /** HTTP status that belongs to the code. */
  readonly status: number;
  /** What is wrong with this request. */
  readonly detail: string;
  /** One fault (code, JSON Pointer, message) per faulty member. */
  readonly errors: Fault[];
  /** Identifier of the request, to be quoted when asking for help. */
  readonly requestId: string | null;
  /** Seconds to wait before trying again, where the server says so. */
  readonly retryAfter: number | null;

  /** Whether the same request may succeed later. */
  readonly retryable: boolean;

  constructor(detail = '', problem: ProblemDetails = {}) {
    const request = problem.requestId ? ` (request ${printable(problem.requestId, 100)})` : '';
    const errors = problem.errors ?? [];
    const faults = errors.slice(0, MAX_FAULTS).map(shownFault);
    if (errors.length > MAX_FAULTS) faults.push(`\n  and ${errors.length - MAX_FAULTS} more`);
    super((printable(detail) || new.target.title) + request + faults.join(''));
    this.code = problem.code ?? new.target.code;
    this.status = problem.status ?? new.target.status;
    this.retryable = new.target.retryable;
    this.detail = detail;
    this.errors = errors;
    this.requestId = problem.requestId ?? null;
    this.retryAfter = problem.retryAfter ?? null;
  }
}

function shownFault({ path, message, code }: Fault): string {
  return `\n  ${printable(path) || '(body)'}: ${printable(message)} [${printable(code)}]`;
}

/** A class of problems. */
export type ProblemKind = typeof ProblemError;
