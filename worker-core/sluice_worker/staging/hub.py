"""The Hugging Face Hub as a source: listing with sizes and checksums, and downloads that go on.

Files come over plain HTTP with Range requests, each from the commit that was listed: the library's own
download into a folder begins anew after a process died. Token (`HF_TOKEN`, `HF_TOKEN_PATH`) and address
(`HF_ENDPOINT`) are the library's settings. Errors name the kind of failure and its status, never an address,
which may carry a signature.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sluice_worker.errors import StagingError
from sluice_worker.staging.checksum import Expected
from sluice_worker.staging.manifest import MANIFEST, Request
from sluice_worker.staging.reporter import Reporter
from sluice_worker.staging.source import Listing, SourceFile, check_name, matches

INCLUDED = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "*.txt",
    "*.md",
    "*LICENSE*",
)
"""What is staged of a repository: the weights in one format, and all that the engines read beside them."""

EXCLUDED = ("original/*", "consolidated*", "onnx/*", "openvino/*", ".*", "*/.*")
"""The same weights again, in layouts that few engines read."""


class HubSource:
    """A repository of models."""

    def __init__(self, request: Request, endpoint: str | None = None) -> None:
        """`endpoint` is the address of the Hub; the library knows it otherwise."""
        self._request, self._endpoint = request, endpoint
        self._commit = ""

    def listing(self) -> Listing:
        """Asks the Hub which files there are; later calls fetch from the commit that it named."""
        from huggingface_hub import HfApi  # a slow import

        request = self._request
        with _failures_in_one_sentence(request):
            info = HfApi(self._endpoint).model_info(
                request.source, revision=request.revision, files_metadata=True
            )
        files = tuple(_file(sibling) for sibling in info.siblings or () if self._wanted(sibling.rfilename))
        if not files or info.sha is None:
            raise StagingError(
                f"{request.source} has no file that fits "
                f"{', '.join(request.include or INCLUDED)}. Say with --include what to stage."
            )
        self._commit = info.sha
        return Listing(info.sha, tuple(sorted(files)))

    def fetch(self, file: SourceFile, part: Path, reporter: Reporter) -> Expected:
        """Goes on at the end of `part`."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings hold addresses
        there = part.stat().st_size if part.exists() else 0
        if there > file.size:
            part.unlink()
            reporter.advance(-there)
            there = 0
        url = hf_hub_url(self._request.source, file.name, revision=self._commit, endpoint=self._endpoint)
        with _failures_in_one_sentence(self._request), part.open("r+b" if there else "wb") as target:
            target.seek(there)
            http_get(
                url,
                _Told(target, reporter),  # type: ignore[arg-type]
                resume_size=there,
                headers=build_hf_headers(),
                expected_size=file.size,
            )
        return file.expected

    def _wanted(self, name: str) -> bool:
        if name == MANIFEST:
            return False
        include = self._request.include or INCLUDED
        exclude = self._request.exclude if self._request.include else (*self._request.exclude, *EXCLUDED)
        return matches(name, include, exclude)


class _Told:
    """A file whose growth is reported, also when the download has to begin anew."""

    def __init__(self, file: Any, reporter: Reporter) -> None:
        self._file, self._reporter = file, reporter
        self._seen = file.tell()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        """Unbuffered: what a killed process had is on disk."""
        written: int = self._file.write(data)
        self._file.flush()
        now = self._file.tell()
        self._reporter.advance(now - self._seen)
        self._seen = now
        return written


def _file(sibling: Any) -> SourceFile:
    name = check_name(sibling.rfilename)
    if sibling.size is None:
        raise StagingError(f"The Hub gives no size for {name}. Check that HF_ENDPOINT is a Hugging Face Hub.")
    if sibling.lfs is not None:
        return SourceFile(name, int(sibling.size), Expected(sha256=sibling.lfs.sha256))
    if sibling.blob_id is None:
        raise StagingError(
            f"The Hub gives no checksum for {name}. Check that HF_ENDPOINT is a Hugging Face Hub."
        )
    return SourceFile(name, int(sibling.size), Expected(git_blob=sibling.blob_id))


@contextmanager
def _failures_in_one_sentence(request: Request) -> Iterator[None]:
    """What the library raises, as a `StagingError` that says what to do. Errors of the disk pass."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise StagingError(
            f"{request.source} is gated: accept its terms on the Hub, and give a token of yours in "
            "HF_TOKEN, or in the file that HF_TOKEN_PATH names."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise StagingError(
            f"{request.source} is neither a folder here nor a model on the Hub that can be read. Check the "
            "name; a private one needs HF_TOKEN, or HF_TOKEN_PATH with the name of a file."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise StagingError(
            f"{request.source} has no revision {request.revision}. Check --revision."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise StagingError(_unreachable(request, error)) from error
    except Exception as error:  # the library's HTTP client is not ours to name: it changed between versions
        raise StagingError(_unreachable(request, error)) from error


def _unreachable(request: Request, error: Exception) -> str:
    response = getattr(error, "response", None)
    status = f" (status {response.status_code})" if response is not None else ""
    return (
        f"{request.source} could not be fetched from the Hub: {type(error).__name__}{status}. Check the "
        "network and HF_ENDPOINT, and run again: what has come is kept."
    )
