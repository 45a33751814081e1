/** The LoRA adapters that a client selects for calls that name none of their own: `sketch@0.8`, `ink`. */
import { AdaptersNotSupportedError, ArgumentError } from './errors.js';

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

interface Adapter {
  name: string;
  /** Undefined where none was written. */
  weight: number | undefined;
}

/** What an operation says of itself. */
interface Taker {
  name: string;
  takesAdapters?: boolean;
}

/** Adapters by name with their weights; empty selects nothing. */
export class Adapters {
  readonly #adapters: readonly Adapter[];

  /** The adapters of `name` or `name@weight`; the last `@` counts, so a name may hold one before it. */
  constructor(written: readonly string[] = []) {
    if (!Array.isArray(written)) throw new ArgumentError('adapters is a list of texts.');
    this.#adapters = written.map(read);
    const names = this.#adapters.map(({ name }) => name);
    const twice = names.find((name, i) => names.indexOf(name) < i);
    if (twice !== undefined) {
      throw new ArgumentError(`Adapter ${JSON.stringify(twice)} is named twice; expected each name once.`);
    }
  }

  /** A call's members with those that it lacks of `adapters` and `adapter_weights`. */
  complete(operation: Taker, given: Record<string, unknown>): Record<string, unknown> {
    if (this.#adapters.length === 0) return given;
    if (!operation.takesAdapters) {
      throw new AdaptersNotSupportedError(
        `${operation.name} takes no adapters, and this client selects ${this}; ` +
          'call it on a client without them: client.withAdapters()',
      );
    }
    if (given.adapters !== undefined) return given;
    const adapters = this.#adapters.map(({ name }) => name);
    const weighted = this.#adapters.some(({ weight }) => weight !== undefined);
    if (given.adapter_weights !== undefined || !weighted) return { ...given, adapters };
    return { ...given, adapters, adapter_weights: this.#adapters.map(({ weight }) => weight ?? 1) };
  }

  toString(): string {
    return this.#adapters
      .map(({ name, weight }) => (weight === undefined ? name : `${name}@${weight}`))
      .join(', ');
  }
}

function read(text: string): Adapter {
  if (typeof text !== 'string') {
    throw new ArgumentError(`An adapter is text, 'name' or 'name@weight', not ${JSON.stringify(text)}.`);
  }
  const at = text.lastIndexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  const number = text.slice(at + 1);
  const weight = NUMBER.test(number) ? Number(number) : NaN;
  if (at >= 0 && !Number.isFinite(weight)) {
    throw new ArgumentError(
      `Adapter ${JSON.stringify(text)}: expected a number after the last '@', as in '${name || 'sketch'}@0.8'; ` +
        "a name that holds '@' needs its weight too.",
    );
  }
  if (name === '') {
    throw new ArgumentError(
      `Adapter ${JSON.stringify(text)}: expected 'name' or 'name@weight', as in 'sketch@0.8'.`,
    );
  }
  return { name, weight: at < 0 ? undefined : weight };
}
