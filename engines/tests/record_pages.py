"""Record what a running engine answers, for the tests: `python record_pages.py URL FOLDER [--busy 5]`.

Writes every page that identifies an engine or tells its load, with its status, into FOLDER (below `pages/`).
With `--busy` it has so many long answers going meanwhile and adds the pages that tell the load as
`<page>.busy`. Serve the model from its own folder under a plain name, so that no path of the machine is
recorded. What is recorded is described in `pages/README.md`.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

PATHS = (
    "/", "/v1/models", "/version", "/model", "/props", "/info", "/health", "/ready", "/model_info",
    "/get_model_info", "/server_info", "/get_server_info", "/api/version", "/api/tags", "/api/v0/models",
    "/metrics", "/slots", "/prometheus/metrics",
)  # fmt: skip
LOAD_PATHS = ("/metrics", "/slots", "/prometheus/metrics")


def main() -> None:
    """Record one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--busy", type=int, default=0, metavar="STREAMS")
    parser.add_argument("--after-s", type=float, default=0.7, help="from asking to looking")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    statuses = {path: _record(options.url, path, options.folder, "") for path in PATHS}
    if options.busy:
        model = _get(options.url + "/v1/models")
        for number in range(options.busy):
            threading.Thread(
                target=_talk, args=(options.url, json.loads(model[1]), number), daemon=True
            ).start()
        time.sleep(options.after_s)
        for path in LOAD_PATHS:
            if statuses[path] == 200:
                _record(options.url, path, options.folder, ".busy")
    (options.folder / "statuses.json").write_text(json.dumps(statuses, indent=1) + "\n")


def file_name(path: str) -> str:
    """Of a page: `/v1/models` is `v1-models`."""
    return path.strip("/").replace("/", "-") or "root"


def _record(url: str, path: str, folder: Path, suffix: str) -> int:
    status, body = _get(url + path)
    if status == 200 and body:
        (folder / (file_name(path) + suffix)).write_bytes(body)
    return status


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _talk(url: str, models: dict, number: int) -> None:
    """One long answer."""
    words = " ".join(f"word{number}{index}" for index in range(40))
    body = {
        "model": models["data"][0]["id"],
        "prompt": f"Tell a long story of {words}.",
        "max_tokens": 500,
        "temperature": 1.0,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        url + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=120).read()


if __name__ == "__main__":
    main()
