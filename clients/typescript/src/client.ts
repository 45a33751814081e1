/** The client: one object that knows where the server is, with a resource per model type. */
import { DEFAULT_BASE_URL, Resources } from './generated/resources.gen.js';
import type { ModelInfo } from './generated/types.gen.js';
import { zModelList } from './generated/zod.gen.js';
import { Caller, conform, newId } from './operation.js';
import { Transport, type CallOptions } from './transport.js';

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
  /** How often a call is sent again after a failed connection, 429 or 503; 2 unless given. */
  maxRetries?: number | undefined;
  /** Headers for every call. */
  headers?: Record<string, string> | undefined;
  /** Takes the place of the global `fetch`. */
  fetch?: typeof fetch | undefined;
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

  constructor(options: SheafOptions = {}) {
    const transport = new Transport({
      baseUrl: (options.baseUrl ?? fromEnvironment('SHEAF_BASE_URL') ?? DEFAULT_BASE_URL).replace(/\/+$/, ''),
      apiKey: options.apiKey ?? fromEnvironment('SHEAF_API_KEY'),
      timeout: options.timeout ?? 60,
      maxRetries: options.maxRetries ?? 2,
      headers: options.headers ?? {},
      fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
    });
    super(new Caller(transport, options.model));
    this.models = new Models(transport);
    this.#options = options;
  }

  /** A client like this one, with some options changed. */
  withOptions(options: SheafOptions): Sheaf {
    return new Sheaf({ ...this.#options, ...options });
  }
}

/** The deployed models. */
export class Models {
  constructor(private readonly transport: Transport) {}

  /** One entry a model, in order of their names. */
  async list(options?: CallOptions): Promise<ModelInfo[]> {
    return conform(zModelList, await this.transport.json({ path: '/models', requestId: newId() }, options))
      .models;
  }
}

/** A variable of the process's environment; nothing in a page. */
function fromEnvironment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name] || undefined;
}
