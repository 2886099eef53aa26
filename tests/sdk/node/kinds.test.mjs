// Tools, structured output, embeddings, audio and images: on every engine that declares them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toFile } from 'openai';
import { collect, enginesFor, sdk } from './stack.mjs';

const client = sdk();
const ASKED = [{ role: 'user', content: 'What is the weather in Oslo and Bergen?' }];
const WEATHER = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const PERSON = {
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer' } },
  required: ['name', 'age'],
  additionalProperties: false,
};
const SOUND = Buffer.from('RIFF sound');

function onEach(capability, name, body) {
  for (const model of enginesFor(capability)) {
    test(`${name} [${model}]`, () => body(model, model === 'scripted'));
  }
}

onEach('tool_calls', 'tools run in a loop', async (model, exact) => {
  for (const stream of [false, true]) {
    const asked = [];
    const run = (city) => {
      asked.push(city);
      return 'sunny';
    };
    const tool = {
      type: 'function',
      function: { name: 'get_weather', parameters: WEATHER, parse: (text) => JSON.parse(text).city, function: run },
    };
    const runner = client.chat.completions.runTools({ model, messages: ASKED, tools: [tool], stream });
    const told = await runner.finalContent();
    assert.ok(asked.length > 0);
    if (exact) {
      assert.deepEqual(asked, ['Oslo', 'Bergen']);
      assert.equal(told, 'It is sunny in Oslo and in Bergen.');
    }
  }
});

onEach('tool_calls', 'a function call in a response', async (model, exact) => {
  const tools = [{ type: 'function', name: 'get_weather', parameters: WEATHER, strict: false }];
  const called = await client.responses.stream({ model, tools, input: ASKED }).finalResponse();
  const found = called.output.filter((item) => item.type === 'function_call');
  assert.ok(found.every((item) => JSON.parse(item.arguments).city));
  const input = found.map((item) => ({ type: 'function_call_output', call_id: item.call_id, output: 'sunny' }));
  const told = await client.responses.create({ model, tools, input, previous_response_id: called.id });
  assert.ok(told.output_text);
  if (exact) assert.deepEqual(found.map((item) => item.call_id), ['call_Oslo', 'call_Bergen']);
});

onEach('json_schema', 'an answer is parsed', async (model, exact) => {
  const format = { type: 'json_schema', json_schema: { name: 'person', schema: PERSON, strict: true } };
  const chat = await client.chat.completions.parse({ model, messages: ASKED, response_format: format });
  const text = { format: { type: 'json_schema', name: 'person', schema: PERSON, strict: true } };
  const response = await client.responses.parse({ model, input: 'Who?', text });
  for (const parsed of [chat.choices[0].message.parsed, response.output_parsed]) {
    assert.equal(typeof parsed.age, 'number');
    if (exact) assert.deepEqual(parsed, { name: 'Ada', age: 36 });
  }
});

onEach('embeddings', 'vectors are the same however they travel', async (model, exact) => {
  const packed = await client.embeddings.create({ model, input: ['one', 'two'] });
  const floats = await client.embeddings.create({ model, input: ['one', 'two'], encoding_format: 'float' });
  assert.deepEqual(packed.data[0].embedding, floats.data[0].embedding);
  if (exact) assert.deepEqual(packed.data[1].embedding, [0.25, -0.5, 1, 0.125]);
});

onEach('audio_speech', 'speech is bytes', async (model, exact) => {
  const spoken = await client.audio.speech.create({ model, voice: 'alloy', input: 'Hello' });
  const bytes = Buffer.from(await spoken.arrayBuffer());
  assert.equal(spoken.headers.get('content-type'), 'audio/mpeg');
  if (exact) assert.equal(bytes.subarray(0, 3).toString(), 'ID3');
});

onEach('audio_transcriptions', 'speech is heard', async (model, exact) => {
  const heard = await client.audio.transcriptions.create({ model, file: await toFile(SOUND, 'a.wav') });
  assert.ok(heard.text);
  if (exact) assert.equal(heard.text, 'Hello there.');
});

onEach('images_generations', 'images are drawn', async (model) => {
  const drawn = await client.images.generate({ model, prompt: 'A cat' });
  assert.ok(drawn.data[0].b64_json);
  const events = await collect(await client.images.generate({ model, prompt: 'A cat', stream: true }));
  assert.equal(events.at(-1).type, 'image_generation.completed');
});

onEach('images_edits', 'images are edited', async (model) => {
  const edited = await client.images.edit({ model, prompt: 'More', image: await toFile(SOUND, 'a.png') });
  assert.ok(edited.data.length > 0);
});
