/** Names that types had until 0.2. */
import type { APIPromise, WithResponse } from './answer.js';
import type { RequestInput, ValueInput } from './call.js';
import type { BaseRequest } from './generated/types.gen.js';

/** @deprecated `APIPromise` */
export type Answer<A> = APIPromise<A>;
/** @deprecated `WithResponse` */
export type Answered<A> = WithResponse<A>;
/** @deprecated `RequestInput` */
export type Call<Q extends BaseRequest> = RequestInput<Q>;
/** @deprecated `ValueInput` */
export type Accepts<T> = ValueInput<T>;
