/** Tensors and media, given and got in every form, and bodies as JSON and as MessagePack. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';

import { BadResponseError, InvalidRequestError, Sheaf, type SheafOptions } from '../src/index.js';
import { PNG, png } from './png.js';
import { events, json, packed, problem, serve, type Answer, type Received } from './server.js';

const positions = new Float32Array([0, 0, 0, 0.96, 0, 0, -0.24, 0.93, 0]);
const water = { model: 'mace', atomic_numbers: [8, 1, 1], positions };
const forces = new Float32Array([1, 2, 3, 4, 5, 6, 7, 8, 9.5]);
const base64 = (array: ArrayBufferView) =>
  Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString('base64');
const bytes = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** What a model answers; tensors and media in the form given. */
function computed(request: Received['body'], more: object): Record<string, unknown> {
  const { request_id, model_name } = request;
  return { request_id, model_type: 'materials', model_name, energy: -14.2, n_atoms: 3, ...more };
}
const inJson: Answer = (response, { body }) =>
  json(computed(body, { forces_b64: base64(forces) }))(response, undefined as never);
const inMessagePack: Answer = (response, { body }) =>
  packed(computed(body, { forces_b64: bytes(forces), stress_b64: null }))(response, undefined as never);

async function clientOf(context: TestContext, answer: Answer, options: SheafOptions = {}) {
  const { url, received } = await serve(context, answer);
  return { client: new Sheaf({ baseUrl: url, ...options }), received };
}

async function faultsOf(call: Promise<unknown>): Promise<string[]> {
  const error = await call.catch((error: unknown) => error);
  assert.ok(error instanceof InvalidRequestError, String(error));
  return error.errors.map(({ code, path }) => `${code} ${path}`);
}

describe('a tensor', () => {
  test('is given and got as a typed array', async (context) => {
    const { client, received } = await clientOf(context, inJson);
    const answer = await client.materials.compute(water);
    assert.equal(received[0]?.body.positions_b64, base64(positions));
    assert.equal('positions' in received[0]?.body, false);
    assert.deepEqual(answer.forces satisfies Float32Array | null, forces);
    assert.equal(answer.stress, null);
    assert.equal('forces_b64' in answer, false);
  });

  test('may be a part of a larger array', async (context) => {
    const { client, received } = await clientOf(context, inJson);
    const part = new Float32Array([9, ...positions, 9]).subarray(1, 10);
    await client.materials.compute({ ...water, positions: part });
    assert.equal(received[0]?.body.positions_b64, base64(positions));
  });

  test('may be given as base64 text', async (context) => {
    const { client, received } = await clientOf(context, inJson);
    const { positions: _, ...rest } = water;
    await client.materials.compute({ ...rest, positions_b64: base64(positions) });
    assert.equal(received[0]?.body.positions_b64, base64(positions));
  });

  test('that does not fit is refused with the path on the wire', async (context) => {
    const { client, received } = await clientOf(context, inJson);
    const { positions: _, ...rest } = water;
    const refused: [request: object, fault: string][] = [
      [{ ...water, positions: new Float32Array(8) }, 'bytes_match_shape /positions_b64'],
      [{ ...rest, positions_b64: base64(new Uint8Array(10)) }, 'bytes_match_shape /positions_b64'],
      [{ ...rest, positions_b64: '' }, 'bytes_match_shape /positions_b64'],
      [{ ...rest, positions_b64: 'not base64' }, 'bad_format /positions_b64'],
      [{ ...water, positions: new Float32Array(positions).fill(NaN, 4, 5) }, 'not_finite /positions_b64'],
      [{ ...water, positions: new Float64Array(positions) }, 'wrong_type /positions_b64'],
      [{ ...water, positions: bytes(positions) }, 'wrong_type /positions_b64'],
      [{ ...water, positions: Array.from(positions) }, 'wrong_type /positions_b64'],
      [{ ...water, positions: base64(positions) }, 'wrong_type /positions_b64'],
      [{ ...water, positions: null }, 'requires /positions_b64'],
      [{ ...rest, positions_b64: positions }, 'wrong_type /positions_b64'],
      [{ ...rest, positions_b64: 7 }, 'wrong_type /positions_b64'],
      [rest, 'requires /positions_b64'],
      [{ ...water, positions_b64: base64(positions) }, 'at_most_one_of /positions_b64'],
    ];
    for (const [request, fault] of refused)
      assert.deepEqual(await faultsOf(client.materials.compute(request as never)), [fault]);
    assert.equal(received.length, 0);
  });

  test('of the wrong size is told of with its shape and its bytes', async (context) => {
    const { client } = await clientOf(context, inJson);
    const call = client.materials.compute({ ...water, positions: new Float32Array(8) });
    await assert.rejects(call, /Must hold 36 bytes, shape \(3, 3\) of float32; 32 given\./);
  });

  test('stands in mappings under the name that it has', async (context) => {
    const [now, levels] = [new Float32Array(2), new Float32Array(4)];
    const request = {
      model: 'aurora',
      surface_vars: { '2t': now },
      atmospheric_vars: { t: levels },
      prev_surface_vars: { '2t': base64(now) },
      prev_atmospheric_vars: { t: levels },
      lat: new Float32Array([10]),
      lon: [0, 90],
      pressure_levels: [500, 850],
      current_time: '2024-06-01T00:00:00Z',
    };
    const { client, received } = await clientOf(context, (response, { body }) => {
      const { request_id, model_name, lat, lon, pressure_levels } = body;
      const answer = {
        ...{ request_id, model_type: 'weather', model_name, lat, lon, pressure_levels },
        ...{ forecast_times: ['2024-06-01T06:00:00Z'], step_hours: 6, n_steps: 1 },
        surface_forecasts: [{ '2t': bytes(new Float32Array([280, 281])) }],
        atmospheric_forecasts: [{ t: bytes(levels) }],
      };
      packed(answer)(response, undefined as never);
    });
    const answer = await client.weather.forecast(request);
    assert.deepEqual(received[0]?.body.prev_surface_vars, { '2t': base64(now) });
    assert.deepEqual(received[0]?.body.atmospheric_vars, { t: base64(levels) });
    assert.deepEqual(answer.surface_forecasts[0]?.['2t'], new Float32Array([280, 281]));

    const wrong = { ...request, atmospheric_vars: { t: now } };
    assert.deepEqual(await faultsOf(client.weather.forecast(wrong)), [
      'bytes_match_shape /atmospheric_vars/t',
    ]);
  });

  test('stands in lists', async (context) => {
    const mask = new Uint8Array([0, 1, 1, 0]);
    const { client } = await clientOf(context, (response, { body }) => {
      const { request_id, model_name } = body;
      const own = { masks_b64: [base64(mask), base64(mask)], scores: [1, 0.5], height: 2, width: 2 };
      json({ request_id, model_type: 'segmentation', model_name, ...own })(response, undefined as never);
    });
    const answer = await client.segmentation.segment({
      model: 'sam',
      image: png(),
      box: [0, 0, 1, 1],
    });
    assert.deepEqual(answer.masks satisfies Uint8Array[], [mask, mask]);
  });
});

describe('a file', () => {
  const answer: Answer = (response, { body }) => {
    const { request_id, model_name } = body;
    const own = { image_b64: PNG, width: 1, height: 1, seed: 0 };
    json({ request_id, model_type: 'multimodal_generation', model_name, ...own })(
      response,
      undefined as never,
    );
  };
  const content = png();

  for (const [form, image] of Object.entries({
    'a Uint8Array': content,
    'a Buffer': Buffer.from(content),
    'an ArrayBuffer': content.slice().buffer,
    'a Blob': new Blob([content]),
  })) {
    test(`may be ${form}`, async (context) => {
      const { client, received } = await clientOf(context, answer);
      const generated = await client.multimodalGeneration.generate({ model: 'sd', prompt: 'a hat', image });
      assert.equal(received[0]?.body.image_b64, base64(content));
      assert.deepEqual(generated.image satisfies Uint8Array, png());
    });
  }

  test('stands in lists, as text too', async (context) => {
    const { client, received } = await clientOf(context, problem('internal', 500));
    const images = [new Blob([content]), content];
    await client.embedding.embed({ model: 'clip', images }).catch(() => undefined);
    await client.embedding.embed({ model: 'clip', images_b64: [base64(content)] }).catch(() => undefined);
    assert.deepEqual(
      received.map(({ body }) => body.images_b64),
      [[base64(content), base64(content)], [base64(content)]],
    );
  });

  test('that is none is refused', async (context) => {
    const { client } = await clientOf(context, answer);
    const call = (image: object) => faultsOf(client.depth.estimate({ model: 'midas', ...image } as never));
    assert.deepEqual(await call({ image: new Uint8Array() }), ['too_short /image_b64']);
    assert.deepEqual(await call({ image: new Blob([]) }), ['too_short /image_b64']);
    assert.deepEqual(await call({ image_b64: '' }), ['too_short /image_b64']);
    assert.deepEqual(await call({ image_b64: '!' }), ['bad_format /image_b64']);
    assert.deepEqual(await call({ image: new Float32Array(2) }), ['wrong_type /image_b64']);
    assert.deepEqual(await call({ image: { data: [1] } }), ['wrong_type /image_b64']);
    assert.deepEqual(await call({}), ['missing /image_b64']);
    const images = { model: 'video', frames: [content, new Uint8Array(), 'x'] };
    assert.deepEqual(await faultsOf(client.video.infer(images as never)), ['too_short /frames_b64/1']);
  });

  test('keeps rules by its plain name, and their paths by the name on the wire', async (context) => {
    const { client } = await clientOf(context, answer);
    const call = client.embedding.embed({ model: 'x', texts: null, images: null });
    const error = await call.catch((error: unknown) => error);
    assert.ok(error instanceof InvalidRequestError);
    assert.match(error.message, /texts, images/);
    assert.doesNotMatch(error.message, /_b64/);
  });
});

describe('a body', () => {
  const large = { ...water, atomic_numbers: Array(6000).fill(1), positions: new Float32Array(18_000) };
  const type = ({ headers }: Received) => headers['content-type'];
  const accept = ({ headers }: Received) => headers.accept;
  const bothWays = 'application/msgpack, application/json;q=0.9';

  test('is MessagePack above 64 KiB of tensors and media', async (context) => {
    const { client, received } = await clientOf(context, inMessagePack);
    const answer = await client.materials.compute(water);
    await client.materials.compute(large);
    const exact = { ...water, atomic_numbers: Array(5461).fill(1), positions: new Float32Array(16_383) };
    await client.materials.compute(exact);
    assert.deepEqual(received.map(type), ['application/json', 'application/msgpack', 'application/json']);
    assert.deepEqual(received.map(accept), [bothWays, bothWays, bothWays]);
    assert.deepEqual(bytes(received[1]?.body.positions_b64), bytes(large.positions));
    assert.equal(received[1]?.body.model_name, 'mace');
    assert.deepEqual(answer.forces, forces);
  });

  test('is always or never MessagePack where the client says so', async (context) => {
    const { client, received } = await clientOf(context, inMessagePack);
    const always = client.withOptions({ binary: 'always' });
    const { positions: _, ...rest } = water;
    await always.materials.compute({ ...rest, positions_b64: base64(positions) });
    await client.withOptions({ binary: 'never' }).materials.compute(large);
    assert.deepEqual(received.map(type), ['application/msgpack', 'application/json']);
    assert.deepEqual(received.map(accept), [bothWays, 'application/json']);
    assert.deepEqual(bytes(received[0]?.body.positions_b64), bytes(positions));
  });

  test('without tensors and media asks for JSON', async (context) => {
    const { client, received } = await clientOf(context, problem('internal', 500));
    await client.depth.estimate({ model: 'm', image: png() }).catch(() => undefined);
    await client.embedding.embed({ model: 'm', images: [png()] }).catch(() => undefined);
    assert.deepEqual(received.map(accept), [bothWays, 'application/json']);
  });

  test('is the same when it is sent again', async (context) => {
    const { url, received } = await serve(
      context,
      problem('overloaded', 503, { retry_after: 0 }),
      inMessagePack,
    );
    await new Sheaf({ baseUrl: url }).materials.compute(large);
    assert.equal(received.length, 2);
    assert.deepEqual(received[0]?.body, received[1]?.body);
  });

  test('of many requests is packed as a whole', async (context) => {
    const { client, received } = await clientOf(context, (response, { body }) =>
      packed({
        responses: body.requests.map((request: Received['body']) =>
          computed(request, { forces_b64: bytes(forces) }),
        ),
      })(response, undefined as never),
    );
    const part = { ...water, atomic_numbers: Array(3000).fill(1), positions: new Float32Array(9000) };
    const answers = await client.materials.computeMany([part, part]);
    assert.deepEqual(received.map(type), ['application/msgpack']);
    assert.deepEqual(received.map(accept), [bothWays]);
    assert.deepEqual(bytes(received[0]?.body.requests[1].positions_b64), bytes(part.positions));
    assert.deepEqual((answers[1] as { forces?: unknown }).forces, forces);
  });

  test('of a stream may be MessagePack, its events are text', async (context) => {
    const { client, received } = await clientOf(
      context,
      events((body) => [
        ['result', { type: 'result', done: true, ...computed(body, { forces_b64: base64(forces) }) }],
      ]),
    );
    const final = await client.materials.stream(large).final();
    assert.deepEqual(received.map(type), ['application/msgpack']);
    assert.deepEqual(received.map(accept), ['text/event-stream']);
    assert.deepEqual(final.forces, forces);
  });

  test('that is refused in MessagePack is refused all the same', async (context) => {
    const { client } = await clientOf(context, (response) => {
      const refusal = { type: '/problems/invalid', title: 'Invalid', status: 422, code: 'invalid' };
      response.statusCode = 422;
      response.setHeader('Content-Type', 'application/msgpack');
      void import('@msgpack/msgpack').then(({ encode }) => response.end(encode(refusal)));
    });
    await assert.rejects(client.materials.compute(water), InvalidRequestError);
  });
});

describe('an answer is refused', () => {
  for (const [reason, more, place] of [
    ['where a tensor has too few bytes', { forces_b64: bytes(forces.slice(1)) }, '/forces_b64'],
    ['where a tensor has half an item', { forces_b64: new Uint8Array(35) }, '/forces_b64'],
    ['where a tensor is not finite', { forces_b64: bytes(forces.slice().fill(NaN)) }, '/forces_b64'],
    ['where a tensor is no text', { forces_b64: [1, 2] }, '/forces_b64'],
    ['where a tensor is no base64', { forces_b64: '?' }, '/forces_b64'],
    ['where another member is wrong', { energy: 'low' }, '/energy'],
  ] as const) {
    test(reason, async (context) => {
      const { client } = await clientOf(context, (response, { body }) =>
        packed(computed(body, more))(response, undefined as never),
      );
      const error = await client.materials.compute(water).catch((error: unknown) => error);
      assert.ok(error instanceof BadResponseError, String(error));
      assert.ok(error.message.includes(` ${place}: `), error.message);
    });
  }

  test('where it is no MessagePack', async (context) => {
    const { client } = await clientOf(context, (response) =>
      response.writeHead(200, { 'Content-Type': 'application/msgpack' }).end(Buffer.from([0xc1])),
    );
    await assert.rejects(client.materials.compute(water), /not MessagePack/);
  });
});

test('tensors and files are typed', () => {
  const client = new Sheaf();
  const { positions: _, ...rest } = water;
  // Never run: these lines are here for the compiler.
  const wrong = () => [
    // @ts-expect-error no positions
    client.materials.relax(rest),
    // @ts-expect-error positions twice
    client.materials.compute({ ...water, positions_b64: '' }),
    // @ts-expect-error positions of another kind
    client.materials.compute({ ...water, positions: new Float64Array(9) }),
    // @ts-expect-error positions as nested lists
    client.materials.compute({ ...rest, positions: [[0, 0, 0]] }),
    // @ts-expect-error base64 text under the plain name
    client.materials.compute({ ...rest, positions: 'AAAA' }),
    // @ts-expect-error an image of numbers
    client.depth.estimate({ model: 'midas', image: new Float32Array(3) }),
    // @ts-expect-error one image for a list of them
    client.embedding.embed({ model: 'clip', images: new Uint8Array(3) }),
  ];
  assert.equal(typeof wrong, 'function');
});
