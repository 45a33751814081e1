/** When to try again and how long to wait: pure decisions, the same as in Python. */
import { ConnectionFailedError, ProblemError, type SheafError } from './errors.js';
import { BASE, CAP, FACTOR, LONGEST_ASKED } from './generated/retries.gen.js';

/**
 * Seconds to wait before a try of number `attempt + 2`, `undefined` to give up. The numbers are the schema's
 * (`common/retries.yaml`).
 *
 * Tried again are refusals that the table of problems marks so, and connections that were never made; a connection
 * that broke before its answer began is tried again once, and at once: `repeated` says that it was.
 */
export function waitBefore(
  failure: SheafError,
  attempt: number,
  { asked, repeated, draw = Math.random }: { asked?: number | undefined; repeated: boolean; draw?: () => number },
): number | undefined {
  if (failure instanceof ConnectionFailedError && failure.unanswered) return repeated ? undefined : 0;
  const again = failure instanceof ProblemError ? failure.retryable : failure instanceof ConnectionFailedError && failure.unsent;
  if (!again || (asked ?? 0) > LONGEST_ASKED) return undefined;
  // All of the pause is drawn: callers that were refused together must not come back together.
  return (asked ?? 0) + draw() * Math.min(CAP, BASE * FACTOR ** attempt);
}
