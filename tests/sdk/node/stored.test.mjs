// The Responses API, files and batches, with the bundled engine.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { WORKER, calls, collect, eventually, goOn, sdk } from './stack.mjs';

const client = sdk();
const GREEDY = { model: WORKER, input: 'What is the capital of France?', temperature: 0, max_output_tokens: 30 };

test('a response is created, kept, continued and deleted', async () => {
  const first = await client.responses.create(GREEDY);
  assert.match(first.output_text, /Paris/);
  assert.equal((await client.responses.retrieve(first.id)).output_text, first.output_text);
  const second = await client.responses.create({ ...GREEDY, previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
  assert.ok(second.usage.input_tokens > first.usage.input_tokens);
  const items = await collect(client.responses.inputItems.list(second.id));
  assert.equal(items[0].role, 'user');
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test('a stream has every event in its order', async () => {
  const events = await collect(await client.responses.create({ ...GREEDY, stream: true }));
  assert.deepEqual([...new Set(events.map((event) => event.type))], [
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.content_part.added',
    'response.output_text.delta',
    'response.output_text.done',
    'response.content_part.done',
    'response.output_item.done',
    'response.completed',
  ]);
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const final = await client.responses.stream(GREEDY).finalResponse();
  assert.match(final.output_text, /Paris/);
});

test('a background response is followed, and cancelled down to the engine', async () => {
  const made = await client.responses.create({ ...GREEDY, background: true });
  assert.equal(made.status, 'queued');
  await eventually(
    async () => (await client.responses.retrieve(made.id)).status === 'completed',
    'the response is completed',
  );
  const stream = await client.responses.create({ model: 'pauses', input: 'x', background: true, stream: true });
  let id;
  for await (const event of stream) {
    if (event.type === 'response.created') id = event.response.id;
    if (event.type === 'response.output_text.delta') break;
  }
  assert.equal((await client.responses.cancel(id)).status, 'cancelled');
  await eventually(async () => (await calls('pauses'))[0].left, 'the engine is told');
});

test('a stream that fails in its middle says so', async () => {
  let last;
  for await (const event of await client.responses.create({ model: 'breaks', input: 'x', stream: true })) {
    if (event.type === 'response.output_text.delta') await goOn();
    last = event;
  }
  assert.equal(last.type, 'response.failed');
  assert.match(last.response.error.message, /lost the plot/);
});

test('a file becomes a batch, and the batch a file', async () => {
  const body = { model: WORKER, messages: [{ role: 'user', content: GREEDY.input }], temperature: 0 };
  const line = { custom_id: 'one', method: 'POST', url: '/v1/chat/completions', body };
  const file = await client.files.create({
    file: await toFile(Buffer.from(JSON.stringify(line)), 'requests.jsonl'),
    purpose: 'batch',
  });
  let batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  });
  await eventually(async () => {
    batch = await client.batches.retrieve(batch.id);
    return batch.status === 'completed';
  }, 'the batch is completed');
  const answer = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
  assert.equal(answer.custom_id, 'one');
  assert.match(answer.response.body.choices[0].message.content, /Paris/);
  assert.ok((await collect(client.batches.list({ limit: 50 }))).some((found) => found.id === batch.id));
  assert.equal((await client.files.delete(file.id)).deleted, true);
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
});
