/** The files that the Python client is held to too: which pass whole, which cut off, and what is said of others. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { faultOfFile, type FileKind } from '../src/formats/index.js';
import { InvalidRequestError, Sheaf } from '../src/index.js';
import { json, serve } from './server.js';

interface Record {
  /** Files, and the lengths at which their beginnings pass: the first and the last of each range. */
  whole: { [name: string]: { kind: FileKind; data: string; accepted: [number, number][] } };
  others: { [title: string]: { data: string; image: string | null; audio: string | null } };
}

const FILES = JSON.parse(
  readFileSync(new URL('../../../tests/contract/files.json', import.meta.url), 'utf8'),
) as Record;
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));

describe('a file', () => {
  for (const [name, { kind, data, accepted }] of Object.entries(FILES.whole)) {
    test(`passes whole, and its beginnings as in Python: ${name}`, () => {
      const whole = bytesOf(data);
      assert.equal(faultOfFile(whole, kind), undefined);
      for (let length = 1; length <= whole.length; length++) {
        const passes = accepted.some(([first, last]) => first <= length && length <= last);
        const fault = faultOfFile(whole.subarray(0, length), kind);
        assert.equal(fault === undefined, passes, `${length} bytes: ${fault}`);
      }
    });
  }

  for (const [title, { data, ...said }] of Object.entries(FILES.others)) {
    test(`that is ${title} is told of as in Python`, () => {
      for (const kind of ['image', 'audio'] as const)
        assert.equal(faultOfFile(bytesOf(data), kind) ?? null, said[kind]);
    });
  }
});

describe('a broken file', () => {
  const png = bytesOf(FILES.whole['rgb.png']!.data);
  const page = bytesOf(FILES.others['an HTML page']!.data);

  test('is refused with its place, before anything is sent', async (context) => {
    const { url, received } = await serve(context, json({}));
    const client = new Sheaf({ baseUrl: url });
    const frames = [png, png, png, png.subarray(0, 60)];
    const calls: [Promise<unknown>, string, string][] = [
      [client.depth.estimate({ model: 'm', image: page }), '/image_b64', 'an HTML page'],
      [client.depth.estimate({ model: 'm', image: new Blob([page]) }), '/image_b64', 'an HTML page'],
      [client.depth.estimate({ model: 'm', image_b64: FILES.others.JSON!.data }), '/image_b64', 'JSON'],
      [client.video.infer({ model: 'm', frames }), '/frames_b64/3', 'cut off'],
      [client.audio.transcribe({ model: 'm', audio: png }), '/audio_b64', 'a PNG image'],
    ];
    for (const [call, path, text] of calls) {
      const error = await call.catch((error: unknown) => error);
      assert.ok(error instanceof InvalidRequestError, String(error));
      const [fault] = error.errors;
      assert.deepEqual([fault?.code, fault?.path], ['bad_format', path]);
      assert.ok(fault?.message.includes(text), fault?.message);
      assert.ok(fault?.message.endsWith('.') && !fault.message.endsWith('..'));
    }
    assert.equal(received.length, 0);
  });
});
