"""OpenAI's own SDK puts together what the translation streams, over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from openai.types.responses import ResponseTextDeltaEvent

from sluice_gateway.errors import Failure, problem

from .responses_events import translation_of
from .test_responses_translation import answers, chunk, streamed, whole


@dataclass
class Streaming:
    """Answers every POST with `stream`."""

    client: openai.OpenAI
    stream: bytes = b""


@pytest.fixture(scope="module")
def served() -> Iterator[Streaming]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(state.stream)))
            self.end_headers()
            self.wfile.write(state.stream)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=20) as client:
        state = Streaming(client)
        yield state
    server.shutdown()
    thread.join()
    server.server_close()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(made=answers())
def test_the_sdk_accepts_any_cut_and_ends_with_the_whole_answer(
    served: Streaming, made: tuple[bytes, list[bytes]]
) -> None:
    plain, chunks = made
    served.stream = streamed(translation_of(), *chunks)
    with served.client.responses.stream(model="m", input="hi") as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == [*range(len(events))]
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    wanted = whole(plain, stream=True)
    got = last.response.to_dict()
    for item in got["output"]:  # type: ignore[attr-defined]
        item.pop("parsed_arguments", None)
        for part in item.get("content", ()):
            part.pop("parsed", None)
    assert got == wanted


def test_the_sdk_sees_text_grow(served: Streaming) -> None:
    served.stream = streamed(translation_of(), chunk(content="Hel"), chunk(content="lo"), chunk("stop"))
    with served.client.responses.stream(model="m", input="hi") as stream:
        grown = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
    assert grown == ["Hel", "Hello"]


def test_the_sdk_sees_a_failure_in_the_middle(served: Streaming) -> None:
    translation = translation_of()
    begun = translation.events(chunk(content="half"))
    served.stream = begun + translation.failure(problem(Failure.UPSTREAM_LOST, "Lost."))
    events = list(served.client.responses.create(model="m", input="hi", stream=True))
    assert any(isinstance(event, ResponseTextDeltaEvent) for event in events)
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "Lost."
