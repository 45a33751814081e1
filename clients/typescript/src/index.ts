/** The public names of the client. */
export type { APIPromise, WithResponse } from './answer.js';
export type { NumberArray, RequestInput, ValueInput } from './call.js';
export { Sheaf, type SheafOptions } from './client.js';
export type { BinaryBodies } from './content.js';
export * from './errors.js';
export * from './generated/errors.gen.js';
export type * from './generated/types.gen.js';
export type { Log, LogEntry } from './logging.js';
export { fromProblem } from './problem.js';
export { Stream, type ResultEvent, type StreamEvent } from './streaming.js';
export type { Accepts, Answer, Answered, Call } from './renamed.js';
export type { CallOptions, Middleware } from './transport.js';
