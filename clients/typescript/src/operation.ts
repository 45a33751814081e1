/**
 * Makes a typed operation into an exchange: the request is checked as the server would, sent, and its answer
 * held to the contract.
 */
import type * as z from 'zod';

import { BadResponseError, type ProblemError } from './errors.js';
import { faultsOf } from './faults.js';
import { InvalidRequestError } from './generated/errors.gen.js';
import { GAPS } from './generated/rules.gen.js';
import type { BaseRequest, Fault } from './generated/types.gen.js';
import { readProblem } from './problem.js';
import { breaches } from './rules.js';
import { Stream } from './streaming.js';
import type { CallOptions, Exchange, Transport } from './transport.js';

export type { CallOptions };

/** One typed operation of a model type; `path` holds `{model_name}` where the deployed model's name goes. */
export interface Operation<Q, A> {
  modelType: string;
  path: string;
  /** Name of the request's schema. */
  name: string;
  request: z.ZodType<Q>;
  response: z.ZodType<A>;
}

/** A contract's type, with typed arrays accepted wherever it has arrays of numbers. */
export type Accepts<T> = T extends (number | null)[]
  ? T | Float32Array | Float64Array
  : T extends (infer Item)[]
    ? Accepts<Item>[]
    : T extends object
      ? { [Key in keyof T]: Accepts<T[Key]> }
      : T;

/** A request as a caller writes it: `model` names the deployed model, the client fills in the rest. */
export type Call<Q extends BaseRequest> = Accepts<Omit<Q, 'model_type' | 'model_name'>> & {
  /** Name of the deployed model; the client's `model` when absent. */
  model?: string | undefined;
  model_name?: Q['model_name'];
  model_type?: Q['model_type'];
};

/** A request as it is sent. */
type Body = Record<string, unknown> & { request_id: string; model_name: string };

/** Runs operations for the resources. */
export class Caller {
  constructor(
    private readonly transport: Transport,
    private readonly model: string | undefined,
  ) {}

  async call<Q extends BaseRequest, A>(
    operation: Operation<Q, A>,
    request: Call<Q>,
    options?: CallOptions,
  ): Promise<A> {
    const body = this.prepare(operation, request);
    return conform(operation.response, await this.transport.json(exchange(operation.path, body), options));
  }

  async callMany<Q extends BaseRequest, A>(
    operation: Operation<Q, A>,
    requests: Call<Q>[],
    options?: CallOptions,
  ): Promise<(A | ProblemError)[]> {
    const bodies = requests.map((request) => this.attempt(operation, request));
    const sent = bodies.filter((body): body is Body => !(body instanceof InvalidRequestError));
    const model = sent[0]?.model_name;
    if (model === undefined) return bodies as InvalidRequestError[];
    for (const [i, body] of bodies.entries()) {
      if ('model_name' in body && body.model_name !== model) {
        const message = `All requests of a batch are for one model, here ${model}.`;
        throw refusal([{ code: 'mismatch', path: `/requests/${i}/model_name`, message }]);
      }
    }
    const batch = {
      path: pathTo('/{model_name}/batch', model),
      requestId: newId(),
      body: { requests: sent },
    };
    const answer = (await this.transport.json(batch, options)) as { responses?: unknown };
    const responses = Array.isArray(answer?.responses) ? [...answer.responses] : [];
    if (responses.length !== sent.length)
      throw new BadResponseError('The batch has another number of answers.');
    return bodies.map((body) =>
      body instanceof InvalidRequestError ? body : settle(operation, responses.shift()),
    );
  }

  stream<Q extends BaseRequest, A>(
    operation: Operation<Q, A>,
    request: Call<Q>,
    options: CallOptions = {},
  ): Stream<A> {
    return new Stream({
      deadline: () => this.transport.deadline(options),
      open: async (deadline) => {
        const sent = exchange('/{model_name}/stream', this.prepare(operation, request));
        return this.transport.open({ ...sent, accept: 'text/event-stream' }, options, deadline);
      },
      read: (answer) => conform(operation.response, answer),
    });
  }

  /** The body of a request, or what is wrong with it. */
  private attempt<Q extends BaseRequest>(
    operation: Operation<Q, unknown>,
    request: Call<Q>,
  ): Body | InvalidRequestError {
    try {
      return this.prepare(operation, request);
    } catch (error) {
      if (error instanceof InvalidRequestError) return error;
      throw error;
    }
  }

  private prepare<Q extends BaseRequest>(operation: Operation<Q, unknown>, request: Call<Q>): Body {
    const { model, model_name: named, ...fields } = request;
    const gaps = GAPS[operation.name] ?? [];
    const given = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, plain(value, gaps.includes(name))]);
    const name = model ?? named ?? this.model;
    const body: Record<string, unknown> = {
      request_id: newId(),
      model_type: operation.modelType,
      ...(name === undefined ? {} : { model_name: name }),
      ...Object.fromEntries(given),
    };
    const faults = check(operation, body);
    if (faults.length > 0) throw refusal(faults, body.request_id);
    return body as Body;
  }
}

/** What is wrong with a request as it is sent; nothing where the server would accept it. */
export function check(
  operation: Pick<Operation<unknown, unknown>, 'name' | 'request'>,
  body: unknown,
): Fault[] {
  const parsed = operation.request.safeParse(body);
  return parsed.success
    ? breaches(operation.name, parsed.data as Record<string, unknown>)
    : faultsOf(parsed.error.issues, body);
}

/** The path of a route for a model, its name escaped. */
export function pathTo(route: string, model: string): string {
  return route.replace('{model_name}', encodeURIComponent(model));
}

function refusal(faults: Fault[], requestId?: unknown): InvalidRequestError {
  const count =
    faults.length === 1 ? 'The request is invalid.' : `The request is invalid in ${faults.length} places.`;
  return new InvalidRequestError(count, {
    errors: faults,
    requestId: typeof requestId === 'string' ? requestId : null,
  });
}

function exchange(route: string, body: Body): Exchange {
  return { path: pathTo(route, body.model_name), requestId: body.request_id, body };
}

/** Hold an answer to its contract. */
export function conform<A>(contract: z.ZodType<A>, answer: unknown): A {
  const parsed = contract.safeParse(answer);
  if (parsed.success) return parsed.data;
  const [fault] = faultsOf(parsed.error.issues, answer);
  throw new BadResponseError(
    `The answer breaks the contract at ${fault?.path || '(body)'}: ${fault?.message}`,
  );
}

function settle<A>(operation: Operation<unknown, A>, answer: unknown): A | ProblemError {
  const answered = typeof answer === 'object' && answer !== null && 'model_type' in answer;
  if (answered) return conform(operation.response, answer);
  const problem = readProblem(answer, 'An answer of the batch is neither a response nor a problem.');
  if (problem instanceof BadResponseError) throw problem;
  return problem as ProblemError;
}

/** JSON's own values: typed arrays as arrays, and NaN as `null` where numbers may be missing. */
function plain(value: unknown, gaps: boolean): unknown {
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    return plain(Array.from(value as unknown as ArrayLike<unknown>), gaps);
  }
  if (Array.isArray(value)) return value.map((item) => plain(item, gaps));
  if (gaps && Number.isNaN(value)) return null;
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([name, member]) => [name, plain(member, gaps)]));
}

/** A random UUID, also in pages without a secure origin, where `crypto.randomUUID` is missing. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
