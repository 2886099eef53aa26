"""`/v1/files` as OpenAI's SDK sees it, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import FileObject
from sqlalchemy import select

from sluice_gateway.files.storage import LEFTOVER_AFTER_S, Storage
from sluice_gateway.files.tables import FILES

from ..batches.batch_server import BatchServer, batch_server
from ..serving import eventually


def on_disk(at: BatchServer) -> list[str]:
    return sorted(path.name for path in (at.folder / "files").glob("file-*"))


async def test_a_file_comes_back_as_it_went(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    async with batch_server(tmp_path) as at, at.client() as client:
        made = await client.files.create(file=("../notes.bin", content), purpose="user_data")
        FileObject.model_validate(made.model_dump())
        assert (made.bytes, made.filename, made.purpose) == (3_000_000, "notes.bin", "user_data")
        assert (made.status, made.created_at) == ("processed", at.now[0])
        assert made.expires_at == made.created_at + 30 * 86_400
        assert await client.files.retrieve(made.id) == made
        answer = await client.files.content(made.id)
        assert answer.content == content
        assert answer.response.headers["content-type"] == "application/octet-stream"
        async with at.database.read() as connection:
            stored = await connection.scalar(select(FILES.c.sha256))
        assert stored == hashlib.sha256(content).hexdigest()


async def test_a_deleted_file_is_gone_and_its_content_too(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        made = await client.files.create(file=b"x", purpose="batch")
        assert on_disk(at) == [made.id]
        gone = await client.files.delete(made.id)
        assert (gone.id, gone.deleted, gone.object) == (made.id, True, "file")
        assert on_disk(at) == []
        for ask in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError):
                await ask(made.id)


async def test_a_list_is_read_page_by_page(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        made = []
        for number in range(5):
            at.now[0] += 0.1
            purpose: Any = "batch" if number % 2 else "user_data"
            made.append((await client.files.create(file=b"x", purpose=purpose)).id)
        assert [file.id async for file in client.files.list(limit=2)] == made[::-1]
        assert [file.id async for file in client.files.list(limit=2, order="asc")] == made
        assert [file.id async for file in client.files.list(purpose="batch")] == [made[3], made[1]]
        page = await client.files.list(limit=2, after=made[3])
        assert ([file.id for file in page.data], page.has_more) == ([made[2], made[1]], True)
        with pytest.raises(openai.NotFoundError):
            await client.files.list(after="file-0")


async def test_files_of_others_do_not_exist(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as mine, at.client("sk-b") as theirs:
        made = await mine.files.create(file=b"secret", purpose="batch")
        for ask in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
            with pytest.raises(openai.NotFoundError):
                await ask(made.id)
        assert [file async for file in theirs.files.list()] == []
        with pytest.raises(openai.BadRequestError, match="no file"):
            await theirs.batches.create(
                input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        assert (await mine.files.content(made.id)).content == b"secret"
        async with at.client("sk-c") as nobody:
            with pytest.raises(openai.AuthenticationError):
                await nobody.files.create(file=b"x", purpose="batch")


async def test_an_upload_that_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    async with batch_server(tmp_path, max_bytes=100_000) as at, at.client() as client, at.http as http:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.files.create(file=b"x" * 100_001, purpose="batch")
        assert caught.value.status_code == 413

        async def chunks() -> Any:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(20):
                yield b"x" * 65_536

        undeclared = await http.post(
            "/v1/files", content=chunks(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert undeclared.status_code == 413
        assert list((tmp_path / "files").glob("file-*")) == []
        await client.files.create(file=b"x" * 100_000, purpose="batch")


PART = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
FILE = PART % (b"file", b'; filename="a"', b"x")
PURPOSE = PART % (b"purpose", b"", b"batch")
END = b"--b--\r\n"


WRONG_FORMS: list[tuple[bytes, str | None]] = [
        (PURPOSE + END, "file"),
        (FILE + END, "purpose"),
        (FILE + PART % (b"purpose", b"", b"fun") + END, "purpose"),
        (FILE + FILE + PURPOSE + END, None),
        (FILE + PURPOSE, None),
        (FILE + PURPOSE + PURPOSE + END, None),
        (b"", None),
        (b"nonsense", None),
        (FILE + PART % (b"purpose", b"", b"x" * 2000) + END, None),
        (FILE + PURPOSE + PART % (b"expires_after[seconds]", b"", b"4000") + END, "expires_after.anchor"),
        (
            FILE + PURPOSE + PART % (b"expires_after[anchor]", b"", b"created_at")
            + PART % (b"expires_after[seconds]", b"", b"60") + END,
            "expires_after.seconds",
        ),
    ]  # fmt: skip


async def test_a_wrong_form_is_a_400_that_says_what(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.http as http:
        form = {"content-type": "multipart/form-data; boundary=b"}
        for body, param in WRONG_FORMS:
            answer = await http.post("/v1/files", content=body, headers=form)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), body
            assert on_disk(at) == []
        other = await http.post("/v1/files", json={"purpose": "batch"})
        assert other.status_code == 415


async def test_a_client_that_leaves_or_stalls_leaves_nothing(tmp_path: Path) -> None:
    async with batch_server(tmp_path, idle_s=0.2) as at:
        port = int(at.url.rpartition(":")[2])
        head = (
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-a\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + FILE)
        assert (await asyncio.wait_for(reader.readline(), 20)).split(b" ")[1] == b"408"
        writer.close()
        _, gone = await asyncio.open_connection("127.0.0.1", port)
        gone.write(head + FILE)
        await gone.drain()
        gone.transport.abort()
        await eventually(lambda: not on_disk(at))


async def test_an_upload_says_how_long_its_file_lives(tmp_path: Path) -> None:
    async with batch_server(tmp_path, ttl_days=None) as at, at.client() as client:
        short = await client.files.create(
            file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        long = await client.files.create(file=b"y", purpose="batch")
        assert (short.expires_at, long.expires_at) == (short.created_at + 3600, None)
        at.now[0] += 3601
        with pytest.raises(openai.NotFoundError):
            await client.files.content(short.id)
        assert [file.id async for file in client.files.list()] == [long.id]
        await at.files.sweep()
        assert on_disk(at) == [long.id]


async def test_what_a_crash_left_over_is_swept_and_what_grows_is_not(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        kept = (await client.files.create(file=b"x", purpose="batch")).id
        folder = tmp_path / "files"
        long_ago = at.now[0] - LEFTOVER_AFTER_S - 1
        for name, when in (
            ("file-old", long_ago),
            ("file-old2.part", long_ago),
            ("file-new.part", at.now[0]),
        ):
            (folder / name).touch()
            os.utime(folder / name, (when, when))
        os.utime(folder / kept, (long_ago, long_ago))
        await at.files.sweep()
        assert on_disk(at) == sorted([kept, "file-new.part"])


async def test_without_the_database_the_answer_is_a_503(tmp_path: Path) -> None:
    async with batch_server(tmp_path) as at, at.client() as client:
        async with at.database.begin() as connection:
            await connection.run_sync(FILES.drop)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.files.create(file=b"x", purpose="batch")
        assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")
        assert "retry-after" in caught.value.response.headers


async def test_a_file_whose_beginning_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    beginning = asyncio.create_task(Storage(tmp_path / "files").writer("file-a").__aenter__())
    await asyncio.sleep(0)  # it waits for its thread
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert [*(tmp_path / "files").iterdir()] == []
