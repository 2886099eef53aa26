from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time

import pytest

from sluice_bench.answers import read_answer
from sluice_bench.journeys.blocking_client import BlockingClient
from sluice_bench.metrics import e2e_s, ttft_user_s
from sluice_bench.records import Failure
from sluice_bench.target import Target, WireRequest, http_request

BODY = b'{"model": "small", "stream": true}'


def chat(target):
    return WireRequest(http_request(target, "POST", "/v1/chat/completions", BODY), stream=True)


@pytest.fixture
def client_of():
    clients = []

    def build(target, timeout_s=5.0, **options):
        clients.append(BlockingClient(target, timeout_s, **options))
        return clients[-1]

    yield build
    for client in clients:
        client.close()


@pytest.fixture
def silent():
    """Accepts, and says what it is told to, then nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def start(words=b"", close=False):
        def serve():
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(words)
            connection.close() if close else accepted.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        return Target(host="127.0.0.1", port=listener.getsockname()[1])

    yield start
    for connection in accepted:
        connection.close()
    listener.close()


def test_a_stream_becomes_the_record_that_the_load_client_makes(engine, client_of):
    fake, target = engine()

    record = read_answer(client_of(target).send(chat(target)))

    assert record.failure is None
    assert record.output_tokens == 3
    assert [chunk.n_tokens for chunk in record.chunks] == [1, 1, 1]
    assert 0 < ttft_user_s(record) <= e2e_s(record)
    assert fake.asked[0][2] == {"model": "small", "stream": True}


@pytest.fixture
def certificate(tmp_path):
    """A server's TLS context, and the file of the certificate that vouches for it."""
    name, key, file = "/CN=127.0.0.1", tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", name, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", file]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context, file


def test_tls_is_spoken_to_a_server_that_is_vouched_for(engine, client_of, certificate, monkeypatch):
    context, file = certificate
    _, target = engine(tls=context)

    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    first, second = (read_answer(client_of(target).send(chat(target))) for _ in range(2))

    assert (first.failure, second.failure) == (None, None)
    assert first.output_tokens == 3


def test_a_server_that_nobody_vouches_for_gets_no_request(engine, client_of, certificate):
    fake, target = engine(tls=certificate[0])

    exchange = client_of(target).send(chat(target))

    assert exchange.failure is Failure.CONNECT_FAILED
    assert "certificate" in exchange.detail
    assert fake.asked == []


def test_a_connection_is_kept_between_requests(engine, client_of):
    fake, target = engine()
    client = client_of(target)

    first, second = client.send(chat(target)), client.send(chat(target))

    assert (first.reused, second.reused) == (False, True)
    assert fake.connections == 1


def test_a_connection_that_has_idled_for_long_is_not_used_again(engine, client_of):
    fake, target = engine()
    times = iter(range(10**6))
    client = client_of(target, clock_ns=lambda: next(times) * 10_000_000 + (5 * 10**9 if fake.asked else 0))

    client.send(chat(target))
    client._idle_since_ns -= 5 * 10**9
    client.send(chat(target))

    assert fake.connections == 2


def test_a_connection_that_the_server_wants_closed_is_closed(engine, client_of):
    fake, target = engine(closes=True)
    client = client_of(target)
    models = WireRequest(http_request(target, "GET", "/v1/models"), stream=False)

    assert [client.send(models).failure for _ in range(2)] == [None, None]
    assert fake.connections == 2


@pytest.mark.parametrize("after_reads", [0, 1, 2])
def test_a_client_that_leaves_closes_its_connection(engine, client_of, after_reads):
    fake, target = engine(pause_s=0.03, pieces=12)
    client = client_of(target)

    exchange, left = client.send_and_leave(chat(target), after_reads)
    give_up = time.monotonic() + 5
    while not fake.left and time.monotonic() < give_up:
        time.sleep(0.01)

    assert left
    assert len(exchange.reads) == after_reads
    assert fake.left == 1
    assert not client.in_flight
    assert client.send(chat(target)).reused is False


def test_nobody_leaves_an_answer_that_is_over(engine, client_of):
    _, target = engine()

    exchange, left = client_of(target).send_and_leave(chat(target), 100)

    assert not left
    assert read_answer(exchange).failure is None


def test_nobody_leaves_a_refusal(engine, client_of):
    _, target = engine(mute=["small"])

    exchange, left = client_of(target).send_and_leave(chat(target), 1)

    assert not left
    assert read_answer(exchange).failure is Failure.HTTP_STATUS


@pytest.mark.parametrize(
    ("words", "close", "failure"),
    [
        (b"", False, Failure.TIMEOUT),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", False, Failure.TIMEOUT),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", True, Failure.CONNECTION_LOST),
        (b"", True, Failure.CONNECTION_LOST),
        (b"SSH-2.0\r\n\r\n", False, Failure.PROTOCOL),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nab", True, None),
    ],
)
def test_what_ends_badly_has_one_cause(silent, client_of, words, close, failure):
    target = silent(words, close)

    exchange = client_of(target, timeout_s=0.3).send(chat(target))

    assert exchange.failure is failure


def test_a_closed_port_is_a_failure_to_connect(client_of):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    target = Target(host="127.0.0.1", port=port)

    assert client_of(target).send(chat(target)).failure is Failure.CONNECT_FAILED


def test_who_is_stopped_in_the_middle_leaves_no_connection_behind(engine, client_of):
    class Stopped(BaseException):
        pass

    _, target = engine(pause_s=0.01)
    stamps = []

    def clock_ns():
        stamps.append(time.perf_counter_ns())
        if len(stamps) == 6:
            raise Stopped
        return stamps[-1]

    client = client_of(target, clock_ns=clock_ns)
    with pytest.raises(Stopped):
        client.send(chat(target))

    assert client.in_flight
    assert client._socket is None
