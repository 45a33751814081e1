/** LoRA adapters that a client selects: which calls get them, and how they are written. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { AdaptersNotSupportedError, Sheaf, SheafError } from '../src/index.js';
import { OPERATIONS } from '../src/generated/resources.gen.js';
import { PNG } from './png.js';
import { events, json, serve, type Answer, type Received } from './server.js';

const request = { model: 'flux', prompt: 'a lighthouse' };

function drawn({ request_id, model_name }: Received['body']): Record<string, unknown> {
  return { request_id, model_name, model_type: 'diffusion', image_b64: PNG, height: 8, width: 8, seed: 1 };
}

const answerImage: Answer = (response, { body }) => json(drawn(body))(response, undefined as never);
const answerImages: Answer = (response, { body }) =>
  json({ responses: body.requests.map(drawn) })(response, undefined as never);

function selection({ body }: Received): [unknown, unknown] {
  return [body.adapters, body.adapter_weights];
}

describe('a client with adapters', () => {
  test('applies them to calls, streams and many at once', async (context) => {
    const { url, received } = await serve(
      context,
      answerImage,
      events((body) => [['result', { type: 'result', done: true, ...drawn(body) }]]),
      answerImages,
    );
    const client = new Sheaf({ baseUrl: url }).withAdapters('sketch@0.8', 'ink');
    await client.diffusion.generate(request);
    await client.diffusion.stream(request).final();
    await client.diffusion.generateMany([request, { ...request, adapters: ['own'] }]);
    const [call, stream, many] = received as [Received, Received, Received];
    assert.deepEqual(selection(call), [
      ['sketch', 'ink'],
      [0.8, 1],
    ]);
    assert.deepEqual(selection(stream), selection(call));
    const [first, second] = many.body.requests;
    assert.deepEqual([first.adapters, first.adapter_weights], selection(call));
    assert.deepEqual([second.adapters, second.adapter_weights], [['own'], undefined]);
  });

  test('sends weights only where one is written', async (context) => {
    const { url, received } = await serve(context, answerImage);
    await new Sheaf({ baseUrl: url, adapters: ['ink', 'sketch'] }).diffusion.generate(request);
    assert.deepEqual(selection(received[0]!), [['ink', 'sketch'], undefined]);
  });

  test('leaves what a call names itself', async (context) => {
    const { url, received } = await serve(context, answerImage);
    const client = new Sheaf({ baseUrl: url }).withAdapters('ink@0.5');
    await client.diffusion.generate({ ...request, adapters: [] });
    await client.diffusion.generate({ ...request, adapters: ['own'], adapter_weights: [2] });
    await client.diffusion.generate({ ...request, adapter_weights: [0.25] });
    await client.diffusion.generate({ ...request, adapter_weights: null });
    assert.deepEqual(received.map(selection), [
      [[], undefined],
      [['own'], [2]],
      [['ink'], [0.25]],
      [['ink'], null],
    ]);
  });

  test('refuses operations that take none, and sends nothing', async (context) => {
    const { url, received } = await serve(context, json({ models: [] }));
    const client = new Sheaf({ baseUrl: url }).withAdapters('ink@0.5');
    const forecast = { model: 'm', history: [1], horizon: 1, frequency: '1h' as const };
    const refused = (error: unknown) =>
      error instanceof AdaptersNotSupportedError &&
      error.message.startsWith('time_series.forecast takes no adapters, and this client selects ink@0.5;');
    await assert.rejects(client.timeSeries.forecast(forecast), refused);
    await assert.rejects(client.timeSeries.forecastMany([forecast]), refused);
    await assert.rejects(client.timeSeries.stream(forecast).final(), refused);
    assert.equal(received.length, 0);
    assert.deepEqual(await client.models.list(), []);
  });

  test('shows them, keeps them with other options, and has others by another selection', () => {
    const client = new Sheaf({ baseUrl: 'http://sheaf.test' });
    const selecting = client.withAdapters('sketch@0.80', 'me@home@1').withOptions({ timeout: 5 });
    assert.equal(String(selecting), 'Sheaf(http://sheaf.test, adapters sketch@0.8, me@home@1)');
    assert.equal(String(selecting.withAdapters('ink')), 'Sheaf(http://sheaf.test, adapters ink)');
    assert.equal(String(selecting.withAdapters()), 'Sheaf(http://sheaf.test)');
    assert.equal(String(client), 'Sheaf(http://sheaf.test)');
  });

  for (const [written, expected] of [
    [['ink@'], /a number after the last '@', as in 'ink@0.8'/],
    [['me@home'], /a name that holds '@' needs its weight too/],
    [['ink@nan'], /expected a number/],
    [['ink@1e999'], /expected a number/],
    [['ink@ 1'], /expected a number/],
    [['@1'], /expected 'name' or 'name@weight'/],
    [[''], /expected 'name' or 'name@weight'/],
    [['ink', 'ink@2'], /"ink" is named twice/],
    [[['ink']], /not \["ink"\]/],
  ] as [string[], RegExp][]) {
    test(`says what was expected instead of ${JSON.stringify(written)}`, () => {
      assert.throws(
        () => new Sheaf().withAdapters(...written),
        (error) => error instanceof SheafError && expected.test(error.message),
      );
    });
  }
});

test('operations take adapters where their requests have both fields', () => {
  for (const { name, request, takesAdapters } of OPERATIONS) {
    const fields = Object.keys((request.schema as unknown as { shape: object }).shape);
    assert.equal(takesAdapters ?? false, fields.includes('adapters'), name);
    assert.equal(takesAdapters ?? false, fields.includes('adapter_weights'), name);
  }
});
