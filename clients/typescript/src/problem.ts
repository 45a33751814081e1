/** Turns problem documents (RFC 9457) into errors of the class that their code names. */
import { BadResponseError, ProblemError, type SheafError } from './errors.js';
import { BY_CODE } from './generated/errors.gen.js';
import type { Problem } from './generated/types.gen.js';
import { zProblem } from './generated/zod.gen.js';

/** The error for a problem document; an unknown code takes the nearest class by status. */
export function fromProblem(problem: Problem): ProblemError {
  const nearest = () => Object.values(BY_CODE).find((kind) => kind.status === problem.status);
  // A code is any text, `constructor` too.
  const known = Object.hasOwn(BY_CODE, problem.code) ? BY_CODE[problem.code] : undefined;
  const kind = known ?? nearest() ?? ProblemError;
  return new kind(problem.detail, {
    code: problem.code,
    status: problem.status,
    errors: problem.errors,
    requestId: problem.request_id,
    retryAfter: problem.retry_after,
  });
}

const BAD_GATEWAY = 502;

/**
 * The error for the body of an answer that is no success, `undefined` where it cannot be read. A proxy in between has
 * its own idea of an error page: its status is kept, the page is dropped.
 */
export function readRefusal(value: unknown, status: number): ProblemError {
  const problem = zProblem.safeParse(value);
  if (problem.success) return fromProblem(problem.data);
  const page = { code: `http_${status}`, detail: `HTTP ${status} from something that is not Sheaf.` };
  // A proxy's 502 says that no server answered; that of the schema's table is one that did.
  if (status === BAD_GATEWAY) return new ProblemError(page.detail, { ...page, status });
  return fromProblem({ ...page, type: 'about:blank', title: '', status, request_id: null, errors: [], retry_after: null });
}

/** The error for a part of an answer that ought to be a problem document. */
export function readProblem(value: unknown, otherwise: string): SheafError {
  const problem = zProblem.safeParse(value);
  return problem.success ? fromProblem(problem.data) : new BadResponseError(otherwise);
}
