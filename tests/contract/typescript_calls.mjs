// Makes the calls of standard input, one JSON object a line, through the TypeScript client, and writes the
// outcome of each as a line of JSON. Usage: node typescript_calls.mjs CLIENT_MODULE SERVER_URL
import { createInterface } from 'node:readline';

const { Sheaf, ProblemError } = await import(process.argv[2]);
let exchanges = 0;
const client = new Sheaf({
  baseUrl: process.argv[3],
  fetch: (...message) => {
    exchanges += 1;
    return fetch(...message);
  },
});

/** A typed array as base64 text, which is what JSON has for it. */
function plain(_, value) {
  if (!ArrayBuffer.isView(value)) return value;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
}

/** The answer, or the faults of a refusal. */
function settled(given) {
  if (!(given instanceof ProblemError)) return { answer: given };
  return { kind: given.name, faults: given.errors.map(({ code, path }) => [code, path]) };
}

async function outcome(call) {
  try {
    return await call();
  } catch (error) {
    if (error instanceof ProblemError) return settled(error);
    throw error;
  }
}

const FORMS = {
  call: async (resource, operation, body) => settled(await resource[operation](body)),
  many: async (resource, operation, bodies) => ({
    many: (await resource[`${operation}Many`](bodies)).map(settled),
  }),
  stream: async (resource, operation, body) => {
    const events = [];
    for await (const event of resource[operation](body)) events.push(event);
    return { events };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { form, resource, operation, given } = JSON.parse(line);
  const before = exchanges;
  const found = await outcome(() => FORMS[form](client[resource], operation, given));
  process.stdout.write(JSON.stringify({ ...found, sent: exchanges - before }, plain) + '\n');
}
