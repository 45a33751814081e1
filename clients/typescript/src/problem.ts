/** Turns problem documents (RFC 9457) into errors of the class that their code names. */
import { BadResponseError, ProblemError, type SheafError } from './errors.js';
import { BY_CODE } from './generated/errors.gen.js';
import type { Problem } from './generated/types.gen.js';
import { zProblem } from './generated/zod.gen.js';

/** The error for a problem document; an unknown code takes the nearest class by status. */
export function fromProblem(problem: Problem): ProblemError {
  const nearest = () => Object.values(BY_CODE).find((kind) => kind.status === problem.status);
  const kind = BY_CODE[problem.code] ?? nearest() ?? ProblemError;
  return new kind(problem.detail, {
    code: problem.code,
    status: problem.status,
    errors: problem.errors,
    requestId: problem.request_id,
    retryAfter: problem.retry_after,
  });
}

/** The error for a part of an answer that ought to be a problem document. */
export function readProblem(value: unknown, otherwise: string): SheafError {
  const problem = zProblem.safeParse(value);
  return problem.success ? fromProblem(problem.data) : new BadResponseError(otherwise);
}
