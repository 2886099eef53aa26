// Chat completions, completions and models of the bundled engine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { APIUserAbortError } from 'openai';
import { GREEDY, PARIS, WORKER, calls, collect, eventually, sdk } from './stack.mjs';

const client = sdk();

test('a question is answered whole and in pieces', async () => {
  const whole = await client.chat.completions.create(GREEDY);
  assert.match(whole.choices[0].message.content, /Paris/);
  assert.equal(whole.choices[0].finish_reason, 'stop');
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);

  const stream = await client.chat.completions.create({
    ...GREEDY,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await collect(stream);
  const deltas = chunks.flatMap((chunk) => chunk.choices);
  assert.equal(deltas.map((choice) => choice.delta.content ?? '').join(''), whole.choices[0].message.content);
  assert.equal(deltas.at(-1).finish_reason, 'stop');
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.total_tokens, whole.usage.total_tokens);
});

test('the stream helper gathers the answer', async () => {
  const stream = client.chat.completions.stream(GREEDY);
  assert.match(await stream.finalContent(), /Paris/);
});

test('a completion goes on with its prompt', async () => {
  const asked = { model: WORKER, prompt: 'Once upon a time', max_tokens: 8, temperature: 0 };
  const whole = await client.completions.create({ ...asked, echo: true });
  const chunks = await collect(await client.completions.create({ ...asked, stream: true }));
  const text = chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.text).join('');
  assert.equal(whole.choices[0].text, asked.prompt + text);
});

test('models are listed and looked up', async () => {
  const listed = await collect(client.models.list());
  assert.equal(listed[0].id, WORKER);
  assert.equal((await client.models.retrieve(WORKER)).id, WORKER);
});

test('raw responses have the headers', async () => {
  const { data, response, request_id } = await client.chat.completions.create(GREEDY).withResponse();
  assert.match(data.choices[0].message.content, /Paris/);
  assert.equal(request_id, response.headers.get('x-request-id'));
  assert.equal(data._request_id, request_id);
  assert.equal(response.headers.get('x-sluice-backend'), 'worker');
  assert.match(response.headers.get('x-sluice-route'), /model=sluice-tiny/);
  assert.match(response.headers.get('server-timing'), /^queue;dur=/);
  assert.ok(Number(response.headers.get('openai-processing-ms')) >= 0);
});

test('many questions at once are not mixed up', async () => {
  const ask = async (number) => {
    const messages = [{ role: 'user', content: `number ${number}` }];
    const answer = await client.chat.completions.create({ model: 'echo', messages });
    return answer.choices[0].message.content;
  };
  const numbers = [...Array(20).keys()];
  assert.deepEqual(await Promise.all(numbers.map(ask)), numbers.map((number) => `number ${number}`));
});

test('a stream that is left early frees the engine', async () => {
  const stream = await client.chat.completions.create({ model: 'pauses', messages: PARIS, stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  await eventually(async () => (await calls('pauses'))[0].left, 'the engine hears that the client left');
});

test('an aborted request frees the engine', async () => {
  const controller = new AbortController();
  const before = (await calls('never')).length;
  const asked = client.chat.completions.create(
    { model: 'never', messages: PARIS },
    { signal: controller.signal },
  );
  await eventually(async () => (await calls('never')).length > before, 'the engine is asked');
  controller.abort();
  await assert.rejects(asked, APIUserAbortError);
  await eventually(async () => (await calls('never'))[0].left, 'the engine hears that the client left');
});
