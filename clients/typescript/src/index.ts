/** The public names of the client. */
export { Sheaf, type SheafOptions } from './client.js';
export * from './errors.js';
export * from './generated/errors.gen.js';
export type * from './generated/types.gen.js';
export type { Accepts, Call } from './operation.js';
export { fromProblem } from './problem.js';
export { Stream, type ResultEvent, type StreamEvent } from './streaming.js';
export type { CallOptions } from './transport.js';
