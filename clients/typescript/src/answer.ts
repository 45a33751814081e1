/** What a call returns: a promise of the answer that also tells of the HTTP response that carried it. */

/** An answer and its HTTP response: status and headers, as its body has been read. */
export interface WithResponse<A> {
  data: A;
  response: Response;
}

/** A promise of the answer; `withResponse()` gives the HTTP response beside it. */
export interface APIPromise<A> extends Promise<A> {
  withResponse(): Promise<WithResponse<A>>;
}

export function answer<A>(answered: Promise<WithResponse<A>>): APIPromise<A> {
  const data = answered.then(({ data }) => data);
  const withResponse = () => {
    data.catch(() => undefined); // a failure is told once, by the promise asked for
    return answered;
  };
  return Object.assign(data, { withResponse });
}
