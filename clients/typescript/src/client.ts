/** The client: one object that knows where the server is, with a resource per model type. */
import { Adapters } from './adapters.js';
import { answer, type APIPromise } from './answer.js';
import {
  readAnswerBytes,
  readBaseUrl,
  readHeaders,
  readKey,
  readMiddleware,
  readOptions,
  readRetries,
  readTimeout,
  readWord,
} from './arguments.js';
import { DEFAULT_ANSWER_BYTES } from './body.js';
import type { BinaryBodies } from './content.js';
import { conform } from './contract.js';
import { ArgumentError } from './errors.js';
import { DEFAULT_BASE_URL, Resources } from './generated/resources.gen.js';
import type { ModelInfo } from './generated/types.gen.js';
import { zModelList } from './generated/zod.gen.js';
import { logger, type Log } from './logging.js';
import { Caller, newId } from './operation.js';
import { Transport, type CallOptions, type Middleware } from './transport.js';

/** How a client reaches its server. */
export interface SheafOptions {
  /** Where the server is; else the environment's SHEAF_BASE_URL, else this machine. */
  baseUrl?: string | undefined;
  /** Sent as a bearer token; else the environment's SHEAF_API_KEY. */
  apiKey?: string | undefined;
  /** Name of the deployed model for calls that name none. */
  model?: string | undefined;
  /** Seconds to wait for each call, retries included; 60 unless given. */
  timeout?: number | undefined;
  /**
   * How often a call is sent again after a connection that could not be made, 429, 502 or 503; once of these also
   * after a connection that broke before its answer began. 2 unless given.
   */
  maxRetries?: number | undefined;
  /**
   * Most bytes of an answer once it is unpacked, or of one event of a stream; what is larger is a `BadResponseError`.
   * 512 MiB unless given; `Infinity` for no limit.
   */
  maxAnswerBytes?: number | undefined;
  /** Headers for every call. */
  headers?: Record<string, string> | undefined;
  /** Takes the place of the global `fetch`. */
  fetch?: typeof fetch | undefined;
  /** Stands between the client and the network, the first outermost. */
  middleware?: readonly Middleware[] | undefined;
  /** Tells of every request without its secrets; else the environment's SHEAF_LOG, `debug` or `info`. */
  log?: Log | undefined;
  /**
   * When bodies are MessagePack with raw bytes: `auto` (requests with more than 64 KiB of tensors and media, and
   * answers that have such), `always`, or `never`.
   */
  binary?: BinaryBodies | undefined;
  /** LoRA adapters of calls that name none, as `withAdapters` takes them. */
  adapters?: readonly string[] | undefined;
}

/**
 * A client of one server.
 *
 * ```ts
 * const client = new Sheaf();
 * const forecast = await client.timeSeries.forecast({ model: 'chronos', history, horizon: 12, frequency: '1h' });
 * ```
 */
export class Sheaf extends Resources {
  /** What is deployed. */
  readonly models: Models;
  readonly #options: SheafOptions;
  readonly #baseUrl: string;
  readonly #adapters: Adapters;

  /**
   * Takes its options, or only the address of the server, as in `new Sheaf('http://10.0.0.5:8000')`.
   *
   * @throws ArgumentError An option is none or cannot be used; the text says which, and shows no key.
   */
  constructor(given: string | SheafOptions = {}) {
    const options = typeof given === 'string' ? { baseUrl: given } : readOptions(given, OPTIONS, EXPECTED);
    const { log, model }: SheafOptions = options;
    const baseUrl = addressIn(options);
    if (options.fetch !== undefined && typeof options.fetch !== 'function')
      throw new ArgumentError('fetch is a function.');
    if (model !== undefined && typeof model !== 'string')
      throw new ArgumentError('model is the name of a deployed model.');
    if (log !== undefined && typeof log !== 'function') readWord(log, ['debug', 'info'], 'log');
    const transport = new Transport({
      baseUrl,
      apiKey: readKey(options.apiKey) ?? readKey(fromEnvironment('SHEAF_API_KEY'), 'SHEAF_API_KEY'),
      timeout: readTimeout(options.timeout ?? 60),
      maxRetries: readRetries(options.maxRetries ?? 2),
      maxAnswerBytes: readAnswerBytes(options.maxAnswerBytes ?? DEFAULT_ANSWER_BYTES),
      headers: readHeaders(options.headers ?? {}),
      fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
      middleware: readMiddleware(options.middleware ?? []),
      log: logger(log ?? logOf(fromEnvironment('SHEAF_LOG'))),
    });
    const binary = readWord(options.binary ?? 'auto', BINARY_BODIES, 'binary');
    const adapters = new Adapters(options.adapters);
    super(new Caller(transport, model, binary, adapters));
    this.models = new Models(transport);
    this.#options = options;
    this.#baseUrl = baseUrl;
    this.#adapters = adapters;
  }

  /** A client like this one, with some options changed; `undefined` leaves one as it is. */
  withOptions(options: SheafOptions): Sheaf {
    const changed = Object.entries(readOptions(options, OPTIONS, 'an object of options')).filter(([, value]) => value !== undefined);
    return new Sheaf({ ...this.#options, ...Object.fromEntries(changed) });
  }

  /**
   * A client like this one whose calls apply these LoRA adapters, `name` or `name@weight`, in place of those that
   * this one selects; none selects none. Where no weight is written, the deployment's own hold; where some are,
   * the others are 1. The last `@` counts.
   *
   * A call that has `adapters` of its own keeps them. Other operations than those with `adapters` reject with an
   * `AdaptersNotSupportedError`.
   *
   * ```ts
   * const image = await client.withAdapters('sketch@0.8', 'ink').diffusion.generate({ prompt: 'a lighthouse' });
   * ```
   *
   * @throws SheafError A weight is no finite number, or a name is empty or there twice.
   */
  withAdapters(...adapters: string[]): Sheaf {
    return this.withOptions({ adapters });
  }

  /** Where the client's server is, the model it calls and its adapters; keys and headers are never shown. */
  override toString(): string {
    const { model } = this.#options;
    const selected = this.#adapters.toString();
    return `Sheaf(${this.#baseUrl}${model === undefined ? '' : `, model ${model}`}${
      selected && `, adapters ${selected}`
    })`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}

/** The deployed models. */
export class Models {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** One entry a model, in order of their names. */
  list(options?: CallOptions): APIPromise<ModelInfo[]> {
    const list = async () => {
      const { data, response } = await this.#transport.send({ path: '/models', requestId: newId() }, options);
      return { data: conform({ name: 'ModelList', schema: zModelList }, data).models, response };
    };
    return answer(list());
  }
}

/** Each name that an option has. */
const OPTIONS: Record<keyof SheafOptions, true> = {
  baseUrl: true,
  apiKey: true,
  model: true,
  timeout: true,
  maxRetries: true,
  maxAnswerBytes: true,
  headers: true,
  fetch: true,
  middleware: true,
  log: true,
  binary: true,
  adapters: true,
};
const EXPECTED = "the server's address as text, or options as { baseUrl: 'http://127.0.0.1:8000' }";

const BINARY_BODIES: readonly BinaryBodies[] = ['auto', 'always', 'never'];

function addressIn({ baseUrl }: SheafOptions): string {
  if (baseUrl !== undefined) return readBaseUrl(baseUrl);
  return readBaseUrl(fromEnvironment('SHEAF_BASE_URL') ?? DEFAULT_BASE_URL, 'SHEAF_BASE_URL');
}

function logOf(level: string | undefined): Log | undefined {
  return level === 'debug' || level === 'info' ? level : undefined;
}

/** A variable of the process's environment; nothing in a page. */
function fromEnvironment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name] || undefined;
}
