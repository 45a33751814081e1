/** What is sent for a call, what is refused before sending, and what is made of the answer. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  BadResponseError,
  InvalidRequestError,
  ModelNotFoundError,
  ProblemError,
  Sheaf,
} from '../src/index.js';
import { newId, pathTo } from '../src/operation.js';
import { answerForecast, forecast, json, problem, serve } from './server.js';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const call = { model: 'chronos', history: [1, 2, 3], horizon: 2, frequency: '1h' } as const;
const given = { ...call, history: [...call.history] };

const faultsOf = (error: unknown) => {
  assert.ok(error instanceof InvalidRequestError);
  return error.errors.map(({ code, path }) => `${code} ${path}`);
};

describe('a forecast', () => {
  test('is sent to its typed route with what the client fills in', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const client = new Sheaf({ baseUrl: `${url}/`, apiKey: 'secret', headers: { 'X-Team': 'demand' } });
    const answer = await client.timeSeries.forecast(given, { headers: { 'X-Run': '7' } });

    const [{ method, path, headers, body }] = received as [(typeof received)[0]];
    assert.equal(`${method} ${path}`, 'POST /chronos/time_series/forecast');
    assert.match(body.request_id, UUID);
    assert.deepEqual(
      { ...body, request_id: '' },
      {
        request_id: '',
        model_type: 'time_series',
        model_name: 'chronos',
        history: [1, 2, 3],
        horizon: 2,
        frequency: '1h',
      },
    );
    assert.equal(headers['x-request-id'], body.request_id);
    assert.equal(headers['idempotency-key'], body.request_id);
    assert.equal(headers['authorization'], 'Bearer secret');
    assert.equal(headers['x-team'], 'demand');
    assert.equal(headers['x-run'], '7');
    assert.ok(Number(headers['x-sheaf-timeout']) > 0 && Number(headers['x-sheaf-timeout']) <= 60);
    assert.equal(answer.request_id, body.request_id);
    assert.deepEqual(answer.mean, [1, 1]);
  });

  test('has what the server left out filled in, and loses what the contract does not know', async (context) => {
    const later = { metadata: { region: 'north' }, from_a_newer_server: true };
    const { url } = await serve(context, (response, { body }) =>
      json(forecast(body, later))(response, undefined as never),
    );
    const answer = await new Sheaf({ baseUrl: url }).timeSeries.forecast(given);
    assert.equal(answer.point, 'mean');
    assert.equal(answer.quantiles, null);
    assert.deepEqual(answer.metadata, { usage: null, warnings: [], context_hit: null, region: 'north' });
    assert.equal('from_a_newer_server' in answer, false);
  });

  test('may be written as on the wire', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const request_id = newId();
    const wire = { request_id, model_type: 'time_series', model_name: 'chronos' } as const;
    await new Sheaf({ baseUrl: url, model: 'other' }).timeSeries.forecast({
      ...wire,
      history: [1],
      horizon: 1,
      frequency: '1d',
    });
    assert.equal(received[0]?.path, '/chronos/time_series/forecast');
    assert.equal(received[0]?.body.request_id, request_id);
  });

  test("goes to the client's model where it names none", async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const client = new Sheaf({ baseUrl: url }).withOptions({ model: 'bolt' });
    await client.timeSeries.forecast({ history: [1], horizon: 1, frequency: '1d' });
    assert.equal(received[0]?.path, '/bolt/time_series/forecast');
  });

  test('takes typed arrays, and NaN for a missing value', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const client = new Sheaf({ baseUrl: url });
    const past_covariates = { price: new Float32Array([0.5, NaN]), promo: [0, 1] };
    await client.timeSeries.forecast({ ...call, history: new Float64Array([1, NaN]), past_covariates });
    await client.timeSeries.forecast({
      ...call,
      history: [new Float32Array([1, 2]), [NaN, 3]],
      seed: undefined as never,
    });
    assert.deepEqual(received[0]?.body.history, [1, null]);
    assert.deepEqual(received[0]?.body.past_covariates, { price: [0.5, null], promo: [0, 1] });
    assert.deepEqual(received[1]?.body.history, [
      [1, 2],
      [null, 3],
    ]);
    assert.equal('seed' in received[1]?.body, false);
  });

  test('takes dates for times', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const client = new Sheaf({ baseUrl: url });
    await client.timeSeries.forecast({ ...given, start: new Date(0) });
    const days = [1, 2, 3].map((day) => new Date(Date.UTC(2024, 0, day)));
    await client.timeSeries.forecast({ ...given, timestamps: ['2023-12-31T00:00:00Z', ...days.slice(1)] });
    assert.equal(received[0]?.body.start, '1970-01-01T00:00:00.000Z');
    assert.deepEqual(received[1]?.body.timestamps, [
      '2023-12-31T00:00:00Z',
      '2024-01-02T00:00:00.000Z',
      '2024-01-03T00:00:00.000Z',
    ]);
    const late = client.timeSeries.forecast({ ...given, timestamps: [days[1]!, days[0]!, days[2]!] });
    assert.deepEqual(faultsOf(await late.catch((error: unknown) => error)), ['increasing /timestamps/1']);
  });

  test('that is invalid is refused before anything is sent', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const client = new Sheaf({ baseUrl: url });
    const refused: [request: object, faults: string[]][] = [
      [{ ...given, horizn: 3 }, ['unknown_field /horizn']],
      [{ ...given, history: [1, Infinity] }, ['not_finite /history/1']],
      [{ ...given, quantile_levels: [NaN] }, ['not_finite /quantile_levels/0']],
      [{ ...given, static_covariates: { size: NaN } }, ['not_finite /static_covariates/size']],
      [{ ...given, horizon: NaN }, ['not_finite /horizon']],
      [{ ...given, history: new Float64Array(0) }, ['too_short /history']],
      [{ ...given, history: [1, undefined] }, ['wrong_type /history/1']],
      [{ ...given, history: [[1, 2], [3]] }, ['rectangular /history/1']],
      [{ ...given, start: new Date(NaN) }, ['wrong_type /start']],
      [{ ...given, model: undefined }, ['missing /model_name']],
      [{ ...given, model: '../admin' }, ['bad_format /model_name']],
    ];
    for (const [request, faults] of refused) {
      const error = await client.timeSeries.forecast(request as never).catch((error: unknown) => error);
      assert.deepEqual(faultsOf(error), faults);
    }
    assert.equal(received.length, 0);
  });

  test("rejects with the class of the server's problem", async (context) => {
    const more = { detail: 'No model "chronos".', request_id: 'r-1', errors: [] };
    const { url } = await serve(context, problem('model_not_found', 404, more));
    const error = await new Sheaf({ baseUrl: url }).timeSeries
      .forecast(given)
      .catch((error: unknown) => error);
    assert.ok(error instanceof ModelNotFoundError);
    assert.deepEqual(
      [error.code, error.status, error.detail, error.requestId],
      ['model_not_found', 404, 'No model "chronos".', 'r-1'],
    );
    assert.equal(error.message, 'No model "chronos". (request r-1)');
    assert.equal(error.name, 'ModelNotFoundError');
  });

  test('rejects where the answer breaks the contract', async (context) => {
    const { url } = await serve(context, (response, { body }) =>
      json({ ...forecast(body), mean: [null] })(response, undefined as never),
    );
    await assert.rejects(new Sheaf({ baseUrl: url }).timeSeries.forecast(given), (error: Error) => {
      assert.ok(error instanceof BadResponseError);
      assert.match(error.message, /\/mean\/0/);
      return true;
    });
  });

  test('is typed', () => {
    const client = new Sheaf();
    // Never run: these lines are here for the compiler.
    const wrong = () => [
      // @ts-expect-error a misspelt member
      client.timeSeries.forecast({ ...given, horizn: 3 }),
      // @ts-expect-error no such frequency
      client.timeSeries.forecast({ ...given, frequency: '2h' }),
      // @ts-expect-error no horizon
      client.timeSeries.forecast({ model: 'chronos', history: [1], frequency: '1h' }),
    ];
    assert.equal(typeof wrong, 'function');
  });
});

describe('many forecasts', () => {
  test('are answered or refused each by itself, in order', async (context) => {
    const refusal = {
      type: '/problems/invalid',
      title: 'Invalid',
      status: 422,
      code: 'invalid',
      detail: 'Not this level.',
    };
    const { url, received } = await serve(context, (response, { body }) =>
      json({ responses: [forecast(body.requests[0]), refusal, forecast(body.requests[2])] })(
        response,
        undefined as never,
      ),
    );
    const client = new Sheaf({ baseUrl: url });
    const horizons = [1, 0, 2, 3];
    const answers = await client.timeSeries.forecastMany(horizons.map((horizon) => ({ ...given, horizon })));

    assert.equal(received[0]?.path, '/chronos/batch');
    assert.deepEqual(
      received[0]?.body.requests.map((request: { horizon: number }) => request.horizon),
      [1, 2, 3],
    );
    const [first, second, third, fourth] = answers as [unknown, unknown, unknown, unknown];
    assert.deepEqual((first as { mean: number[] }).mean, [1]);
    assert.deepEqual(faultsOf(second), ['out_of_range /horizon']);
    assert.ok(third instanceof InvalidRequestError && third.detail === 'Not this level.');
    assert.deepEqual((fourth as { mean: number[] }).mean, [1, 1, 1]);
  });

  test('are for one model', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const mixed = new Sheaf({ baseUrl: url }).timeSeries.forecastMany([given, { ...given, model: 'bolt' }]);
    assert.deepEqual(faultsOf(await mixed.catch((error: unknown) => error)), [
      'mismatch /requests/1/model_name',
    ]);
    assert.equal(received.length, 0);
  });

  test('send nothing where nothing is to be sent', async (context) => {
    const { url, received } = await serve(context, answerForecast);
    const client = new Sheaf({ baseUrl: url });
    assert.deepEqual(await client.timeSeries.forecastMany([]), []);
    const [only] = await client.timeSeries.forecastMany([{ ...given, horizon: 0 }]);
    assert.deepEqual(faultsOf(only), ['out_of_range /horizon']);
    assert.equal(received.length, 0);
  });

  test('reject where the number of answers differs', async (context) => {
    const { url } = await serve(context, json({ responses: [] }));
    await assert.rejects(new Sheaf({ baseUrl: url }).timeSeries.forecastMany([given]), BadResponseError);
  });
});

describe('the response', () => {
  test('stands beside the answer where it is asked for', async (context) => {
    const { url } = await serve(context, (response, { body }) =>
      json(forecast(body), 200, { 'X-Region': 'north' })(response, undefined as never),
    );
    const { data, response } = await new Sheaf({ baseUrl: url }).timeSeries.forecast(given).withResponse();
    assert.deepEqual(data.mean satisfies number[], [1, 1]);
    assert.deepEqual([response.status, response.headers.get('x-region')], [200, 'north']);
  });

  test('belongs to the list of models too', async (context) => {
    const { url } = await serve(context, json({ models: [] }));
    const { data, response } = await new Sheaf({ baseUrl: url }).models.list().withResponse();
    assert.deepEqual([data, response.ok], [[], true]);
  });

  test('fails once where the call fails', async (context) => {
    const { url } = await serve(context, problem('model_not_found', 404));
    const unhandled: unknown[] = [];
    const note = (reason: unknown) => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    context.after(() => process.off('unhandledRejection', note));
    const call = new Sheaf({ baseUrl: url }).timeSeries.forecast(given);
    await assert.rejects(call.withResponse(), ModelNotFoundError);
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual(unhandled, []);
  });
});

describe('the client', () => {
  test('lists the deployed models', async (context) => {
    const model = {
      name: 'chronos',
      model_type: 'time_series',
      backend: 'chronos2',
      operations: ['/x'],
      ready: true,
    };
    const { url, received } = await serve(context, json({ models: [model] }));
    // Of what an older server does not say, the defaults.
    const unsaid = { title: null, streams: false, adapters: false, contexts: false };
    assert.deepEqual(await new Sheaf({ baseUrl: url }).models.list(), [{ ...model, ...unsaid }]);
    assert.equal(`${received[0]?.method} ${received[0]?.path}`, 'GET /models');
    assert.equal(received[0]?.headers['idempotency-key'], undefined);
  });

  test('takes its address and key from the environment', async (context) => {
    const { url, received } = await serve(context, json({ models: [] }));
    context.after(() => {
      delete process.env.SHEAF_BASE_URL;
      delete process.env.SHEAF_API_KEY;
    });
    process.env.SHEAF_BASE_URL = url;
    process.env.SHEAF_API_KEY = 'of-the-environment';
    await new Sheaf().models.list();
    assert.equal(received[0]?.headers['authorization'], 'Bearer of-the-environment');
  });

  test('escapes what it puts into a path', () => {
    assert.equal(pathTo('/{model_name}/stream', 'a/b?c#d é'), '/a%2Fb%3Fc%23d%20%C3%A9/stream');
    assert.equal(pathTo('/{model_name}/stream', '$&'), '/%24%26/stream');
  });

  test('makes identifiers that are random UUIDs', () => {
    const ids = Array.from({ length: 100 }, newId);
    for (const id of ids) assert.match(id, UUID);
    assert.equal(new Set(ids).size, 100);
  });

  test('keeps the nearest class for a code it does not know', async (context) => {
    const { url } = await serve(context, problem('paused', 503, { detail: 'Paused.' }));
    const error = await new Sheaf({ baseUrl: url, maxRetries: 0 }).models
      .list()
      .catch((error: unknown) => error);
    assert.ok(error instanceof ProblemError);
    assert.deepEqual([error.name, error.code, error.status], ['OverloadedError', 'paused', 503]);
  });
});
