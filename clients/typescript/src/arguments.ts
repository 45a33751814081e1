/** The arguments of clients and calls, checked where they are given; no text shows a key or a header. */
import { ArgumentError } from './errors.js';

export const LONGEST_TIMEOUT = 86_400;

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const TEXT = /^[\t\x20-\x7e]*$/;
const KEY = /^[\x21-\x7e]*$/;
/** Headers that frame a message; another's value for them would break it. */
const FRAMING = new Set(['connection', 'content-length', 'host', 'transfer-encoding']);

/**
 * An object of options whose every name is among `known`: one spelled otherwise would be left out without a word.
 * `what` says what is expected in its place.
 */
export function readOptions<O extends object>(given: O, known: Record<keyof O, true>, what: string): O {
  // What else there is, a URL or a Map, hides what it holds.
  if (Object.prototype.toString.call(given) !== '[object Object]')
    throw new ArgumentError(`Expected ${what}, and ${kindOf(given)} was given.`);
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(known, name)) continue;
    const meant = Object.keys(known).find((one) => bare(one) === bare(name));
    const hint = meant ? `did you mean '${meant}'?` : `there are ${Object.keys(known).join(', ')}.`;
    throw new ArgumentError(`No option is called '${name}'; ${hint}`);
  }
  return given;
}

function kindOf(given: unknown): string {
  return given === null ? 'null' : Object.prototype.toString.call(given).slice('[object '.length, -1);
}

/** A name as it is in any style: `base_url` and `baseURL` are one. */
function bare(name: string): string {
  return name.replace(/[_-]/g, '').toLowerCase();
}

/** Where a server is, without a slash at its end; in a page also a path from the root of its origin. */
export function readBaseUrl(given: unknown, name = 'baseUrl'): string {
  if (typeof given !== 'string') throw new ArgumentError(`${name} is text, as in 'http://127.0.0.1:8000'.`);
  const url = given.trim();
  const inPage = 'location' in globalThis;
  if (inPage && (url === '' || /^\/(?!\/)/.test(url))) return url.replace(/\/+$/, '');
  // Whatever stands before an `@` or in a query may be a secret, also where it is at the wrong place.
  const shown = url.replace(/[?#].*$/s, '').replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, '$1');
  if (!/^https?:\/\//i.test(url)) {
    const guess = url.includes('://') ? '' : `; did you mean 'http://${shown}'?`;
    throw new ArgumentError(`${name} begins with 'http://' or 'https://', and '${shown}' does not${guess}`);
  }
  if (/^[a-z]+:\/\/[^/?#]*@/i.test(url))
    throw new ArgumentError('A base URL holds no user and password; give `apiKey` or `headers`.');
  if (/[\s\\]/.test(url) || !URL.canParse(url)) throw new ArgumentError(`${name} is no URL of a server: '${shown}'.`);
  if (/[?#]/.test(url))
    throw new ArgumentError(`${name} has a query or a fragment, which calls cannot keep: '${shown}'.`);
  return url.replace(/\/+$/, '');
}

/** An API key without the white space around it; files end in a newline. Empty is none. */
export function readKey(given: unknown, name = 'apiKey'): string | undefined {
  if (given === undefined || given === null) return undefined;
  if (typeof given !== 'string') throw new ArgumentError(`${name} is text.`);
  const key = given.trim();
  if (!KEY.test(key)) {
    throw new ArgumentError(`${name} has a character that no key has; expected visible ASCII, without spaces.`);
  }
  return key || undefined;
}

/** Seconds that a call may take. */
export function readTimeout(given: unknown): number {
  if (typeof given === 'number' && given > 0 && given <= LONGEST_TIMEOUT) return given;
  const shown = typeof given === 'number' ? `${given} given` : `${typeof given} given`;
  throw new ArgumentError(`A timeout is above 0 and at most ${LONGEST_TIMEOUT} seconds; ${shown}.`);
}

/** How often a call is sent again. */
export function readRetries(given: unknown): number {
  if (Number.isInteger(given) && (given as number) >= 0) return given as number;
  throw new ArgumentError('maxRetries is a whole number from 0 on.');
}

/** Most bytes of an answer; `Infinity` for no limit. */
export function readAnswerBytes(given: unknown): number {
  if (given === Infinity || (Number.isInteger(given) && (given as number) >= 1)) return given as number;
  throw new ArgumentError('maxAnswerBytes is a whole number from 1 on, or Infinity for no limit.');
}

/** Headers that a message may carry. */
export function readHeaders(given: unknown): Record<string, string> {
  if (typeof given !== 'object' || given === null || Array.isArray(given) || given instanceof Headers)
    throw new ArgumentError('headers are an object of text to text.');
  const read: Record<string, string> = {};
  for (const [name, value] of Object.entries(given as object)) {
    if (!TOKEN.test(name))
      throw new ArgumentError("headers: the name of a header has letters, digits and '-'; one has others.");
    if (FRAMING.has(name.toLowerCase()))
      throw new ArgumentError(`headers: '${name}' is the connection's own, and cannot be set.`);
    if (typeof value !== 'string') throw new ArgumentError(`headers: the value of '${name}' is text.`);
    const text = value.trim();
    if (!TEXT.test(text)) {
      const rule = 'expected ASCII, without line breaks';
      throw new ArgumentError(`headers: the value of '${name}' has a character that headers cannot carry; ${rule}.`);
    }
    read[name] = text;
  }
  return read;
}

/** One of a few words. */
export function readWord<W>(given: unknown, words: readonly W[], name: string): W {
  if (words.includes(given as W)) return given as W;
  throw new ArgumentError(`${name} is one of ${words.map((word) => `'${word}'`).join(', ')}.`);
}

/** Functions to call around each try. */
export function readMiddleware<M>(given: readonly M[]): readonly M[] {
  if (Array.isArray(given) && given.every((item) => typeof item === 'function')) return given;
  throw new ArgumentError('middleware is a list of functions.');
}
