/**
 * Makes a typed operation into an exchange: the request is checked as the server would, sent, and its answer
 * held to the contract.
 */
import { Adapters } from './adapters.js';
import { answer, type APIPromise, type WithResponse } from './answer.js';
import { fromCall, type RequestInput } from './call.js';
import { EVENT_STREAM, JSON_TYPE, mediaOf, PACKED_OR_JSON, toContent, type BinaryBodies } from './content.js';
import { conform, conformOpen, inspect, placesOf, type Contract } from './contract.js';
import { BadResponseError, ProblemError } from './errors.js';
import { InternalServerError, InvalidRequestError } from './generated/errors.gen.js';
import { GAPS } from './generated/rules.gen.js';
import type { BaseRequest, Fault, ProgressEvent } from './generated/types.gen.js';
import { NONE } from './places.js';
import { readProblem } from './problem.js';
import { Stream } from './streaming.js';
import type { CallOptions, Exchange, Transport } from './transport.js';
import { toWire } from './wire.js';

/**
 * One typed operation of a model type; `path` holds `{model_name}` where the deployed model's name goes, and
 * `progress` tells a step of its stream.
 */
export interface Operation<Q, A, P extends ProgressEvent = ProgressEvent> {
  /** What the schema calls it, its resource first. */
  name: string;
  modelType: string;
  /** What its contracts say of it; those of a type's primary operation say nothing. */
  operation?: string;
  path: string;
  request: Contract<Q>;
  response: Contract<A>;
  progress: Contract<P>;
  /** Whether requests say which LoRA adapters to apply, and how strongly. */
  takesAdapters?: boolean;
}

/** A checked request in the form that programs hold, and the bytes of its tensors and media. */
interface Ready {
  body: Record<string, unknown>;
  requestId: string;
  model: string;
  bytes: number;
}

/** Above so many bytes of tensors and media a body is MessagePack. */
const WORTH_PACKING = 64 * 1024;

/** Runs operations for the resources. */
export class Caller {
  readonly #transport: Transport;
  readonly #model: string | undefined;
  readonly #binary: BinaryBodies;
  readonly #adapters: Adapters;

  constructor(
    transport: Transport,
    model?: string,
    binary: BinaryBodies = 'auto',
    adapters = new Adapters(),
  ) {
    this.#transport = transport;
    this.#model = model;
    this.#binary = binary;
    this.#adapters = adapters;
  }

  call<Q extends BaseRequest, A>(
    operation: Operation<Q, A>,
    request: RequestInput<Q>,
    options?: CallOptions,
  ): APIPromise<A> {
    const run = async (): Promise<WithResponse<A>> => {
      const ready = await this.#prepare(operation, request);
      const exchange = this.#exchange(operation, operation.path, ready);
      const { data, response } = await this.#transport.send(exchange, options);
      return { data: answerTo(ready.requestId, conform(operation.response, data)), response };
    };
    return answer(run());
  }

  async callMany<Q extends BaseRequest, A>(
    operation: Operation<Q, A>,
    requests: RequestInput<Q>[],
    options?: CallOptions,
  ): Promise<(A | ProblemError)[]> {
    const all = await Promise.all(requests.map((request) => this.#attempt(operation, request)));
    const ready = all.filter((one): one is Ready => !(one instanceof InvalidRequestError));
    const model = ready[0]?.model;
    if (model === undefined) return all as InvalidRequestError[];
    for (const [i, one] of all.entries()) {
      if ('model' in one && one.model !== model) {
        const message = `All requests of a batch are for one model, here ${model}.`;
        throw refusal([{ code: 'mismatch', path: `/requests/${i}/model_name`, message }]);
      }
    }
    const { data } = await this.#transport.send(this.#batch(operation, model, ready), options);
    const answered = (data as { responses?: unknown } | null)?.responses;
    const responses: unknown[] = Array.isArray(answered) ? [...answered] : [];
    if (responses.length !== ready.length)
      throw new BadResponseError('The batch has another number of answers.');
    return all.map((one) =>
      one instanceof InvalidRequestError ? one : settle(operation, one.requestId, responses.shift()),
    );
  }

  stream<Q extends BaseRequest, A, P extends ProgressEvent>(
    operation: Operation<Q, A, P>,
    request: RequestInput<Q>,
    options: CallOptions = {},
  ): Stream<A, P> {
    let requestId = '';
    return new Stream({
      maxEvent: this.#transport.maxAnswerBytes,
      deadline: () => this.#transport.deadline(options),
      open: async (deadline) => {
        const ready = await this.#prepare(operation, request);
        requestId = ready.requestId;
        const exchange = this.#exchange(operation, '/{model_name}/stream', ready);
        const response = await this.#transport.open({ ...exchange, accept: EVENT_STREAM }, options, deadline);
        const media = mediaOf(response.headers.get('Content-Type'));
        if (media !== '' && media !== EVENT_STREAM)
          throw new BadResponseError(`The answer is no stream of events, but ${media}.`);
        return response;
      },
      readProgress: (event) => conformOpen(operation.progress, event),
      read: (data) => answerTo(requestId, conform(operation.response, data)),
      readError: ({ problem, error }) =>
        problem === undefined && typeof error === 'string'
          ? new InternalServerError(error, { requestId })
          : readProblem(problem, 'The error event has no problem document.'),
    });
  }

  /** A request that is ready to be sent, or what is wrong with it. */
  async #attempt<Q extends BaseRequest>(
    operation: Operation<Q, unknown>,
    request: RequestInput<Q>,
  ): Promise<Ready | InvalidRequestError> {
    try {
      return await this.#prepare(operation, request);
    } catch (error) {
      if (error instanceof InvalidRequestError) return error;
      throw error;
    }
  }

  async #prepare<Q extends BaseRequest>(operation: Operation<Q, unknown>, request: RequestInput<Q>): Promise<Ready> {
    const { model: named, model_name: wireNamed, ...fields } = request as RequestInput<BaseRequest>;
    // Null is no name, yet it was given: it is refused as it would be by the server.
    const model = [named, wireNamed, this.#model].find((name) => name !== undefined);
    const { name } = operation.request;
    const completed = this.#adapters.complete(operation, fields);
    const held = await fromCall(completed, placesOf(operation.request), GAPS[name] ?? []);
    const body: Record<string, unknown> = {
      request_id: newId(),
      model_type: operation.modelType,
      ...(operation.operation === undefined ? {} : { operation: operation.operation }),
      ...(model === undefined ? {} : { model_name: model }),
      ...(held.value as object),
    };
    const requestId = body.request_id as string;
    const faults = inspect(operation.request, { ...held, value: body });
    if (faults.length > 0) throw refusal(faults, requestId);
    return { body, requestId, model: model!, bytes: held.bytes };
  }

  #exchange(operation: Operation<unknown, unknown>, route: string, ready: Ready): Exchange {
    const packed = this.#packs(ready.bytes);
    return {
      path: pathTo(route, ready.model),
      requestId: ready.requestId,
      content: toContent(toWire(ready.body, placesOf(operation.request), packed), packed),
      accept: this.#accept(operation),
    };
  }

  #batch(operation: Operation<unknown, unknown>, model: string, ready: Ready[]): Exchange {
    const packed = this.#packs(ready.reduce((sum, { bytes }) => sum + bytes, 0));
    const requests = ready.map(({ body }) => toWire(body, placesOf(operation.request), packed));
    return {
      path: pathTo('/{model_name}/batch', model),
      requestId: newId(),
      content: toContent({ requests }, packed),
      accept: this.#accept(operation),
    };
  }

  #packs(bytes: number): boolean {
    return this.#binary === 'always' || (this.#binary === 'auto' && bytes > WORTH_PACKING);
  }

  #accept(operation: Operation<unknown, unknown>): string {
    if (this.#binary === 'never') return JSON_TYPE;
    return placesOf(operation.response) === NONE ? JSON_TYPE : PACKED_OR_JSON;
  }
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

/** The answer, where it is to the request that was sent: a broken connection may bring another's. */
function answerTo<A>(requestId: string, answer: A): A {
  const { request_id: answered } = answer as { request_id?: unknown };
  if (!isSame(requestId, answered))
    throw new BadResponseError(`The answer is to request ${answered}, and ${requestId} was sent.`);
  return answer;
}

function isSame(requestId: string, answered: unknown): boolean {
  return typeof answered === 'string' && answered.toLowerCase() === requestId.toLowerCase();
}

function settle<A>(operation: Operation<unknown, A>, requestId: string, answer: unknown): A | ProblemError {
  const answered = typeof answer === 'object' && answer !== null && 'model_type' in answer;
  if (answered) return answerTo(requestId, conform(operation.response, answer));
  const problem = readProblem(answer, 'An answer of the batch is neither a response nor a problem.');
  if (!(problem instanceof ProblemError)) throw problem;
  if (problem.requestId !== null && !isSame(requestId, problem.requestId))
    throw new BadResponseError(`The refusal is of request ${problem.requestId}, and ${requestId} was sent.`);
  return problem;
}

/** A random UUID, also in pages without a secure origin, where `crypto.randomUUID` is missing. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
