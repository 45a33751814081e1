/** Names that were renamed: the old ones mean the same, to programs and to type checkers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  AdaptersNotSupportedError,
  AdaptersNotTakenError,
  Sheaf,
  type Accepts,
  type Answer,
  type Answered,
  type APIPromise,
  type Call,
  type RequestInput,
  type TimeSeriesRequest,
  type TimeSeriesResponse,
  type ValueInput,
  type WithResponse,
} from '../src/index.js';
import { answerForecast, serve } from './server.js';

test('an error goes by both names', () => {
  assert.equal(AdaptersNotTakenError, AdaptersNotSupportedError);
  assert.equal(new AdaptersNotTakenError('no').name, 'AdaptersNotSupportedError');
});

test('types go by both names', async (context) => {
  const { url } = await serve(context, answerForecast);
  const old: Call<TimeSeriesRequest> = { model: 'm', history: [1], horizon: 1, frequency: '1h' };
  const request: RequestInput<TimeSeriesRequest> = old;
  const promise: APIPromise<TimeSeriesResponse> = new Sheaf({ baseUrl: url }).timeSeries.forecast(request);
  const answer: Answer<TimeSeriesResponse> = promise;
  const answered: Answered<TimeSeriesResponse> = await answer.withResponse();
  const { data, response }: WithResponse<TimeSeriesResponse> = answered;
  const history: Accepts<number[]> = new Float32Array(data.mean) satisfies ValueInput<number[]>;
  assert.equal(response.status, 200);
  assert.equal(history.length, data.mean.length);
});
