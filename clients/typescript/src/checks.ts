/** The checks that zod has no word for; the generated validators call them by name. */
import * as z from 'zod';

import { faultOfFile, type FileKind } from './formats/index.js';
import { isArrayOf, isBytes, type ArrayOf, type Dtype } from './places.js';

/** A string of at most `maximum` characters, counted as JSON Schema does: by code point. */
export function maxCharacters(maximum: number) {
  return z.check<string>(({ issues, value }) => {
    // The text has at least as many UTF-16 units as characters.
    if (value.length > maximum && [...value].length > maximum) {
      issues.push({
        code: 'too_big',
        origin: 'string',
        maximum,
        inclusive: true,
        input: value,
        continue: true,
      });
    }
  });
}

/** The typed array of a dtype. Bytes pass too: those that are no whole array are told of with their shape. */
export function tensor<D extends Dtype>(dtype: D) {
  return z.custom<ArrayOf<D>>().check(({ issues, value }) => {
    if (!isArrayOf(value, dtype) && !isBytes(value)) issues.push(wrongType(value));
  });
}

/** The bytes of an encoded file, which has some, and whose header shows no fault. */
export function media(kind: FileKind) {
  return z.custom<Uint8Array>().check(({ issues, value }) => {
    if (!isBytes(value)) {
      issues.push(wrongType(value));
    } else if (value.byteLength === 0) {
      issues.push({ code: 'too_small', origin: 'string', minimum: 1, inclusive: true, input: value });
    } else {
      const message = faultOfFile(value, kind);
      if (message !== undefined)
        issues.push({ code: 'invalid_format', format: kind, input: '', message });
    }
  });
}

function wrongType(input: unknown) {
  return { code: 'invalid_type', expected: 'custom', input } as const;
}

/** An object of at least `minimum` members. */
export function minMembers(minimum: number) {
  return z.check<object>(({ issues, value }) => {
    if (Object.keys(value).length < minimum) {
      issues.push({
        code: 'too_small',
        origin: 'object',
        minimum,
        inclusive: true,
        input: value,
        continue: true,
      });
    }
  });
}

/** An object of at most `maximum` members. */
export function maxMembers(maximum: number) {
  return z.check<object>(({ issues, value }) => {
    if (Object.keys(value).length > maximum) {
      issues.push({
        code: 'too_big',
        origin: 'object',
        maximum,
        inclusive: true,
        input: value,
        continue: true,
      });
    }
  });
}

/** An ISO 8601 date or date-time that exists. */
export function timestamp() {
  return z.check<string>(({ issues, value }) => {
    if (readTimestamp(value) === undefined) {
      const message = 'Must be an ISO 8601 date or date-time';
      issues.push({ code: 'invalid_format', format: 'timestamp', input: value, message, continue: true });
    }
  });
}

/** Text that does not begin with a date that exists not, such as 30 February; its form is for a pattern to check. */
export function existingDay() {
  return z.check<string>(({ issues, value }) => {
    const day = value.slice(0, 10);
    if (/^\d{4}-\d{2}-\d{2}$/.test(day) && readTimestamp(day) === undefined) {
      const message = 'No such day';
      issues.push({ code: 'invalid_format', format: 'day', input: value, message, continue: true });
    }
  });
}

/** A moment as seconds since 1970 and microseconds; without an offset its place in time is not known. */
export interface Moment {
  seconds: number;
  micros: number;
  offset: boolean;
}

const ISO =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?(?:(Z)|([+-])(\d{2}):(\d{2}))?)?$/;

/** Read a date or date-time; undefined where it has another form or does not exist, such as 30 February. */
export function readTimestamp(text: string): Moment | undefined {
  const parts = ISO.exec(text);
  if (!parts) return undefined;
  const number = (index: number) => Number(parts[index] ?? 0);
  const [year, month, day, hour, minute, second] = [1, 2, 3, 4, 5, 6].map(number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day); // unlike Date.UTC, takes the years below 100 as they are
  const exists = year > 0 && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  const [offsetHour, offsetMinute] = [number(10), number(11)];
  if (!exists || hour > 23 || minute > 59 || second > 59 || offsetHour > 23 || offsetMinute > 59)
    return undefined;
  const ahead = (parts[9] === '-' ? -1 : 1) * (offsetHour * 3600 + offsetMinute * 60);
  return {
    seconds: date.getTime() / 1000 + hour * 3600 + minute * 60 + second - ahead,
    micros: Number((parts[7] ?? '').padEnd(6, '0')),
    offset: parts[8] !== undefined || parts[9] !== undefined,
  };
}
