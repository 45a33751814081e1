/** The time that one call may take, with all its attempts. */
import { readTimeout } from './arguments.js';
import { CallTimeoutError } from './errors.js';

/** The end of a call in time: one for all its attempts. */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #end: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #leave: () => void;

  constructor(seconds: number, outer?: AbortSignal) {
    readTimeout(seconds);
    this.#end = performance.now() + seconds * 1000;
    const told = `No complete answer within ${seconds} s; \`timeout\` gives the call another limit.`;
    const late = () => this.abort(new CallTimeoutError(told));
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
