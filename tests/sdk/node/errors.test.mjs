// Every failure is the class that it would be at OpenAI; limits and idempotency keys.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { GREEDY, PARIS, WORKER, calls, goOn, sdk } from './stack.mjs';

const HELLO = [{ role: 'user', content: 'Hello' }];

const FAILURES = [
  [OpenAI.BadRequestError, 400, null, 'temperature', { temperature: 9 }],
  [OpenAI.BadRequestError, 400, null, 'messages', { messages: [] }],
  [OpenAI.BadRequestError, 400, 'context_length_exceeded', 'messages', { messages: 'long' }],
  [OpenAI.AuthenticationError, 401, 'invalid_api_key', null, {}, 'sk-wrong'],
  [OpenAI.PermissionDeniedError, 403, 'model_not_allowed', 'model', {}, 'sk-narrow'],
  [OpenAI.NotFoundError, 404, 'model_not_found', 'model', { model: 'nobody' }],
  [OpenAI.ConflictError, 409, null, null, { model: 'status-409' }],
  [OpenAI.APIError, 413, 'request_too_large', null, { user: 'x'.repeat(200_000) }],
  [OpenAI.RateLimitError, 429, 'overloaded', null, { model: 'status-429' }],
  [OpenAI.InternalServerError, 500, null, null, { model: 'status-500' }],
  [OpenAI.InternalServerError, 503, 'overloaded', null, { model: 'status-503' }],
];

for (const [kind, status, code, param, fields, key] of FAILURES) {
  for (const stream of [false, true]) {
    const shown = JSON.stringify(fields).slice(0, 40);
    test(`${status} ${kind.name} ${shown}${stream ? ' streamed' : ''}`, async () => {
      const asked = { model: WORKER, messages: HELLO, ...fields, stream };
      if (asked.messages === 'long') asked.messages = [{ role: 'user', content: 'again and '.repeat(3000) }];
      const error = await sdk(key).chat.completions.create(asked).then(assert.fail, (found) => found);
      assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
      assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
      assert.ok(error.requestID);
    });
  }
}

for (const model of ['breaks', 'cuts']) {
  test(`a stream that ${model} in its middle throws`, async () => {
    let text = '';
    await assert.rejects(async () => {
      const stream = await sdk().chat.completions.create({ model, messages: HELLO, stream: true });
      for await (const chunk of stream) {
        text += chunk.choices[0].delta.content ?? '';
        if (text) await goOn();
      }
    }, OpenAI.APIError);
    assert.equal(text, 'half ');
  });
}

test('a timeout is a timeout', async () => {
  const asked = sdk('sk-sdk', { timeout: 300 }).chat.completions.create({ model: 'never', messages: PARIS });
  await assert.rejects(asked, OpenAI.APIConnectionTimeoutError);
});

test('a gateway that is not there is a connection error', async () => {
  const asked = sdk('sk-sdk', { baseURL: 'http://127.0.0.1:9/v1' }).models.list();
  await assert.rejects(asked, OpenAI.APIConnectionError);
});

test('the SDK tries again after a server error', async () => {
  const before = (await calls('recovers')).length;
  const client = sdk('sk-sdk', { maxRetries: 2 });
  const answer = await client.chat.completions.create({ model: 'recovers', messages: HELLO });
  assert.equal(answer.choices[0].message.content, 'Hello there.');
  assert.equal((await calls('recovers')).length, before + 2);
});

test('answers say what is left, and refusals when to come back', async () => {
  const client = sdk('sk-twice-node');
  for (const left of ['1', '0']) {
    const { response } = await client.chat.completions.create({ model: 'echo', messages: HELLO }).withResponse();
    assert.equal(response.headers.get('x-ratelimit-limit-requests'), '2');
    assert.equal(response.headers.get('x-ratelimit-remaining-requests'), left);
  }
  const error = await client.chat.completions
    .create({ model: 'echo', messages: HELLO })
    .then(assert.fail, (found) => found);
  assert.ok(error instanceof OpenAI.RateLimitError);
  assert.deepEqual([error.type, error.code], ['requests', 'rate_limit_exceeded']);
  const wait = Number(error.headers.get('retry-after'));
  assert.ok(wait >= 1 && wait <= 31);
});

test('the SDK waits as told and is served', async () => {
  const slow = await sdk('sk-single-node').chat.completions.create({
    model: 'pauses',
    messages: HELLO,
    stream: true,
  });
  await slow[Symbol.asyncIterator]().next();
  let waitMs = 0;
  const fetching = async (url, init) => {
    const answer = await fetch(url, init);
    if (answer.status === 429) {
      waitMs = Number(answer.headers.get('retry-after-ms'));
      slow.controller.abort();
    }
    return answer;
  };
  const began = Date.now();
  const client = sdk('sk-single-node', { maxRetries: 5, fetch: fetching });
  const answer = await client.chat.completions.create({ model: 'echo', messages: HELLO });
  assert.equal(answer.choices[0].message.content, 'Hello');
  assert.ok(waitMs > 0);
  assert.ok(Date.now() - began >= waitMs - 2, 'timers may be a moment early');
});

test('a repeated request with an idempotency key is done once', async () => {
  const client = sdk();
  const ask = (content) =>
    client.chat.completions
      .create(
        { model: 'scripted', messages: [{ role: 'user', content }] },
        { headers: { 'Idempotency-Key': 'once-node' } },
      )
      .withResponse();
  const before = (await calls('scripted')).length;
  const [first, second] = [await ask('Hello'), await ask('Hello')];
  assert.equal(first.response.headers.get('idempotent-replayed'), null);
  assert.equal(second.response.headers.get('idempotent-replayed'), 'true');
  assert.deepEqual(second.data.choices, first.data.choices);
  assert.equal((await calls('scripted')).length, before + 1);
  await assert.rejects(ask('Something else'), { code: 'idempotency_key_reused' });
});
