"""Kinds that the gateway passes through, to backends that declare them: bytes in, bytes out."""

from __future__ import annotations

import json
from typing import Any

import openai

from .conftest import StartEngine
from .scripted_engine import Call
from .serving import ECHO, Served, serving, settings_of

SOUND = b"RIFF\x00\xff\r\n--not-the-boundary\r\n" * 50
RANKED = {"results": [{"index": 1, "relevance_score": 0.9}], "usage": {"total_tokens": 12}}


def backend(url: str, *endpoints: str) -> dict[str, Any]:
    return {"name": "main", "adapter": "openai_compatible", "url": url, "endpoints": list(endpoints)}


def sdk(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


async def test_json_goes_to_the_path_that_was_asked(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.answer(200, RANKED)

    engine = await start_engine(script)
    kinds = ("rerank", "score", "tokenize", "detokenize")
    async with serving(settings_of(backends=[backend(engine.url, *kinds)])) as served:
        for path, body in {
            "/v1/rerank": b'{"model":"m", "query":"q", "documents":["a","b"], "top_n":1}',
            "/v2/rerank": b'{"model":"m","query":"q","documents":["a"],"new_field":[1]}',
            "/rerank": b'{"model":"m","query":"q","documents":["a"]}',
            "/v1/score": b'{"model":"m","text_1":"a","text_2":["b"]}',
            "/score": b'{"model":"m","text_1":"a","text_2":"b"}',
            "/tokenize": b'{"model":"m","prompt":"a"}',
            "/detokenize": b'{"model":"m","tokens":[1]}',
        }.items():
            answer = await served.http.post(path, content=body)
            assert (answer.status_code, answer.json()) == (200, RANKED)
            assert (engine.calls[-1].path, engine.calls[-1].body) == (path, body)


async def test_speech_comes_back_as_the_bytes_that_it_is(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.answer(200, SOUND, **{"content-type": "audio/mpeg"})

    engine = await start_engine(script)
    settings = settings_of(backends=[backend(engine.url, "audio_speech")])
    async with serving(settings) as served, sdk(served) as client:
        speech = await client.audio.speech.create(model="m", voice="alloy", input="Hello")
        assert speech.content == SOUND
        assert speech.response.headers["content-type"] == "audio/mpeg"


async def test_events_pass_unchanged_whatever_they_are_called(start_engine: StartEngine) -> None:
    events = (
        b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b":"x"}\n\n',
        b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b":"y"}\n\n',
    )

    async def script(call: Call) -> None:
        await call.stream(*events)

    engine = await start_engine(script)
    kinds = ("images_generations", "audio_speech")
    async with serving(settings_of(backends=[backend(engine.url, *kinds)])) as served:
        for path, body in {
            "/v1/images/generations": {"model": "m", "prompt": "cat", "stream": True},
            "/v1/audio/speech": {"model": "m", "input": "Hello", "stream_format": "sse"},
        }.items():
            answer = await served.http.post(path, json=body)
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.content == b"".join(events)
            assert json.loads(engine.calls[-1].body) == body


async def test_uploads_reach_the_engine_byte_for_byte(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        shown = {"text": "Hello", "data": [{"url": "u"}], "created": 1}
        await call.answer(200, shown)

    engine = await start_engine(script)
    kinds = ("audio_transcriptions", "audio_translations", "images_edits", "images_variations")
    async with serving(settings_of(backends=[backend(engine.url, *kinds)])) as served:
        async with sdk(served) as client:
            heard = await client.audio.transcriptions.create(model="m", file=("a.wav", SOUND))
            assert heard.text == "Hello"
            assert SOUND in engine.calls[-1].body
            assert engine.calls[-1].headers["content-type"].startswith("multipart/form-data; boundary=")
            form: Any = {"data": {"model": "m"}, "files": {"file": ("a.wav", SOUND)}}
            assert (await served.http.post("/v1/audio/translations", **form)).status_code == 200
            edited = await client.images.edit(model="m", image=[("a.png", SOUND)], prompt="more")
            assert edited.data and edited.data[0].url == "u"
            form = {"data": {"model": "m"}, "files": {"image": ("a.png", SOUND)}}
            assert (await served.http.post("/v1/images/variations", **form)).status_code == 200
        assert [call.path.removeprefix("/v1/") for call in engine.calls] == [
            "audio/transcriptions",
            "audio/translations",
            "images/edits",
            "images/variations",
        ]
        wrong = await served.http.post("/v1/audio/transcriptions", json={"model": "m"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_what_no_backend_declares_is_a_400_that_names_what_is_offered(
    start_engine: StartEngine,
) -> None:
    async with serving(settings_of(backends=[ECHO])) as served:
        body = {"model": "echo", "query": "q", "documents": ["a"]}
        answer = await served.http.post("/v1/rerank", json=body)
        assert answer.status_code == 400
        assert "embeddings" in answer.json()["error"]["message"]


async def test_a_declared_kind_is_the_only_one_served(start_engine: StartEngine) -> None:
    async def script(call: Call) -> None:
        await call.answer(200, {"data": [{"url": "u"}]})

    engine = await start_engine(script)
    async with serving(settings_of(backends=[backend(engine.url, "images_generations")])) as served:
        made = await served.http.post("/v1/images/generations", json={"model": "m", "prompt": "cat", "n": 3})
        assert made.status_code == 200
        assert json.loads(engine.calls[-1].body)["n"] == 3
        talk = await served.http.post("/v1/chat/completions", json={"model": "m", "messages": []})
        assert talk.status_code == 400
        assert len(engine.calls) == 1
