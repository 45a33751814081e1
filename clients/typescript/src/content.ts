/** Bodies as they are sent and answers as they come: JSON, or MessagePack with raw bytes for tensors and media. */
import { decode as unpack, encode as pack } from '@msgpack/msgpack';

import { BadResponseError } from './errors.js';
import { isPlausible } from './packed.js';

/** When bodies are MessagePack: where it is worth it, always, or never. */
export type BinaryBodies = 'auto' | 'always' | 'never';

/** A body, ready to be sent as often as it takes. */
export interface Content {
  type: string;
  data: string | Uint8Array<ArrayBuffer>;
}

export const JSON_TYPE = 'application/json';
export const PACKED_TYPE = 'application/msgpack';
export const EVENT_STREAM = 'text/event-stream';
/** For answers with tensors or media. */
export const PACKED_OR_JSON = `${PACKED_TYPE}, ${JSON_TYPE};q=0.9`;

export function toContent(body: unknown, packed: boolean): Content {
  return packed
    ? { type: PACKED_TYPE, data: pack(body, { ignoreUndefined: true }) }
    : { type: JSON_TYPE, data: JSON.stringify(body) };
}

/** The value in an answer. */
export function fromContent(type: string | null, data: Uint8Array<ArrayBuffer>): unknown {
  const media = mediaOf(type);
  const packed = media === PACKED_TYPE;
  try {
    if (packed && !isPlausible(data)) throw new RangeError('A length in it is more than there is.');
    return packed ? unpack(data) : JSON.parse(new TextDecoder().decode(data));
  } catch (cause) {
    const but = packed || media === '' || media === JSON_TYPE ? '' : `, but ${media}`;
    throw new BadResponseError(`The answer is not ${packed ? 'MessagePack' : 'JSON'}${but}.`, { cause });
  }
}

/** What a `Content-Type` names, without its parameters; empty where there is none. */
export function mediaOf(type: string | null): string {
  return (type ?? '').split(';', 1)[0]!.trim().toLowerCase();
}
