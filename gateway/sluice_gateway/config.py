"""Reading `sluice.yaml` and the environment, with errors that name file, line, key and what is allowed.

The file is parsed once into YAML nodes, which know their lines, and once into values, which are checked
against `settings.py`. An error found in the values is traced back to its node.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import quote

import msgspec
import yaml

from sluice_engines.base_url import join_base_url
from sluice_engines.registry import AdapterError, adapter_names, create_adapter, load_adapters
from sluice_engines.start_command import start_command
from sluice_engines.transport import UpstreamError
from sluice_gateway import routing_settings
from sluice_gateway.settings import BUNDLED_WORKER, ECHO, Backend, Managed, Settings
from sluice_gateway.upstream.origin import parse_origin

CONFIG_VARIABLE = "SLUICE_CONFIG"
DEFAULT_FILE = "sluice.yaml"

_LOCAL_URL = re.compile(r"^http://(127\.0\.0\.1|localhost):\d+$")

Path_ = tuple[str | int, ...]
"""Way from the top of the file to a value, e.g. `("backends", 0, "url")`."""


class ConfigError(Exception):
    """The configuration cannot be used; the message is for the user."""


class Document:
    """A YAML file whose values remember their lines."""

    def __init__(self, name: str, text: str) -> None:
        """Raises `ConfigError` when the text is not YAML, or a key is there twice."""
        self._name = name
        try:
            self._root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
            if self._root is not None:
                self._refuse_duplicates(self._root)
            self.value: Any = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}, line {line}: not valid YAML: {error.problem}.") from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(
                f"{name}, line {line}: not valid YAML: there is a control character; remove it."
            ) from error
        except RecursionError as error:
            raise ConfigError(f"{name}, line 1: nested too deeply, or an alias holds itself.") from error

    def error(self, path: Path_, message: str) -> ConfigError:
        """An error at a value, or, when it is not there, at the closest thing around it."""
        where = f" {_dotted(path)}:" if path else ""
        return ConfigError(f"{self._name}, line {self._line(path)}:{where} {message}")

    def _line(self, path: Path_) -> int:
        node, line = self._root, 1
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def _refuse_duplicates(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise ConfigError(f"{self._name}, line {line}: a key must be a word, not a list or map.")
                if key.value in seen:
                    raise ConfigError(f"{self._name}, line {line}: '{key.value}' is there twice; keep one.")
                seen.add(key.value)
                self._refuse_duplicates(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._refuse_duplicates(item)


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    """Line and node of one step down."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def parse(name: str, text: str, environment: Mapping[str, str]) -> Settings:
    """Settings from the text of a file called `name`. Raises `ConfigError`."""
    document = Document(name, text)
    value = {} if document.value is None else document.value
    try:
        settings = msgspec.convert(value, Settings, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(document, str(error)) from None
    _check_backends(document, settings, environment)
    _check_keys(document, settings)
    _check_aliases(document, settings)
    if mistake := settings.admission.mistake():
        raise document.error(("admission", mistake[0]), mistake[1])
    return settings


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Settings from a file and the environment. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {error}.") from error
    return with_environment(parse(str(path), text, environment), environment)


def for_serving(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Settings for `sluice serve`: the given file, `SLUICE_CONFIG`, or `./sluice.yaml` if it is there.

    Without a file, and with one that has no backends: the bundled worker. Raises `ConfigError`.
    """
    named = path or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    if named is None and Path(DEFAULT_FILE).is_file():
        named = Path(DEFAULT_FILE)
    settings = load(named, environment) if named else with_environment(Settings(), environment)
    if not settings.backends:
        settings = msgspec.structs.replace(settings, backends=(BUNDLED_WORKER,))
    return settings


def for_application(environment: Mapping[str, str]) -> Settings:
    """Settings for `uvicorn sluice_gateway.main:app`: `SLUICE_CONFIG`, or only the echo engine."""
    if environment.get(CONFIG_VARIABLE):
        return for_serving(None, environment)
    return msgspec.structs.replace(with_environment(Settings(), environment), backends=(ECHO,))


def with_environment(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """`SLUICE_HOST`, `SLUICE_PORT`, `SLUICE_STORE_URL` and `SLUICE_OTLP_ENDPOINT` win over the file, and
    `SLUICE_STORE_PASSWORD_FILE` over the store's URL.

    Raises `ConfigError` on a port or an address that is none, and on a file that cannot be read.
    """
    host = environment.get("SLUICE_HOST") or settings.server.host
    port = environment.get("SLUICE_PORT") or str(settings.server.port)
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"SLUICE_PORT is '{port}'; it must be a number from 1 to 65535.")
    url = environment.get("SLUICE_STORE_URL") or settings.store.url
    url = _with_password(url, environment.get("SLUICE_STORE_PASSWORD_FILE"))
    traces = environment.get("SLUICE_OTLP_ENDPOINT") or settings.tracing.otlp_endpoint
    if traces and not traces.startswith(("http://", "https://")):
        raise ConfigError(f"SLUICE_OTLP_ENDPOINT is '{traces}'; it must be like http://localhost:4318.")
    return msgspec.structs.replace(
        settings,
        server=msgspec.structs.replace(settings.server, host=host, port=int(port)),
        store=msgspec.structs.replace(settings.store, url=url),
        tracing=msgspec.structs.replace(settings.tracing, otlp_endpoint=traces),
    )


def _with_password(url: str, file: str | None) -> str:
    """The URL of a server with the password that a file holds; an empty file holds none."""
    scheme, separator, rest = url.partition("://")
    if not file or scheme == "sqlite":
        return url
    try:
        password = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read SLUICE_STORE_PASSWORD_FILE {file}: {error}.") from error
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    if not password or not at:
        return url
    user = credentials.partition(":")[0]
    return f"{scheme}{separator}{user}:{quote(password, safe='')}@{host}{slash}{path}"


# Checks that concern more than one value


def _check_backends(document: Document, settings: Settings, environment: Mapping[str, str]) -> None:
    _refuse_repeats(document, "backends", "name", [b.name for b in settings.backends])
    for index, backend in enumerate(settings.backends):
        for key, message in _backend_mistakes(backend, environment):
            raise document.error(("backends", index, key), message)


def _backend_mistakes(backend: Backend, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """(key, what is wrong with it)."""
    managed, mistakes = backend.managed, []
    known = adapter_names()
    if backend.adapter not in known:
        mistakes.append(
            ("adapter", f"there is no adapter '{backend.adapter}'; there are: {', '.join(known)}")
        )
    elif problem := _option_mistake(backend):
        mistakes.append(("options" if backend.options else "adapter", problem))
    if backend.adapter == "echo" and (backend.url or managed):
        mistakes.append(("adapter", "the echo engine runs inside the gateway; remove 'url' and 'managed'"))
    elif backend.adapter != "echo" and not backend.url and managed is None:
        mistakes.append(("url", "is missing; give the engine's base URL, or 'managed' to start it here"))
    if managed and not managed.command and not mistakes:
        mistakes.extend(("managed", text) for text in _start_mistakes(backend, managed))
    if managed and backend.url and not (len(backend.urls) == 1 and _LOCAL_URL.match(backend.urls[0])):
        mistakes.append(("url", "of a managed engine must be one http://127.0.0.1:PORT; or leave it out"))
    for url in backend.urls:
        try:
            parse_origin(join_base_url(url, "/")[0])
        except UpstreamError:
            mistakes.append(("url", "is not a usable address; write http://host:port, without credentials"))
    if backend.proxy and backend.upstream != "httpx":
        mistakes.append(("proxy", "needs 'upstream: httpx'; the native client knows no proxies"))
    variable = backend.api_key_env
    if variable and not environment.get(variable):
        mistakes.append(("api_key_env", f"the environment variable {variable} is not set"))
    return mistakes


def _option_mistake(backend: Backend) -> str | None:
    """What the adapter does not like about its options, or why it cannot be loaded."""
    try:
        create_adapter(load_adapters([backend.adapter])[backend.adapter], backend.options)
    except AdapterError as error:
        return str(error)
    return None


def _start_mistakes(backend: Backend, managed: Managed) -> list[str]:
    """What is missing where the engine is to be started as its adapter knows."""
    adapter = create_adapter(load_adapters([backend.adapter])[backend.adapter], backend.options)
    known = start_command(adapter)
    if known is None:
        return [f"'command' is missing; adapter '{backend.adapter}' does not know how its engine is started"]
    if known.needs_args and not managed.args:
        return [f"'args' has to say what to serve: args: {known.needs_args}"]
    return []


def _check_keys(document: Document, settings: Settings) -> None:
    _refuse_repeats(document, "keys", "id", [key.id for key in settings.keys])
    _refuse_repeats(document, "keys", "sha256", [key.sha256 for key in settings.keys])
    _refuse_repeats(document, "tenants", "id", [tenant.id for tenant in settings.tenants])
    names = [b.name for b in settings.backends] or [BUNDLED_WORKER.name]
    for index, key in enumerate(settings.keys):
        for unknown in sorted(set(key.backends or ()) - set(names)):
            raise document.error(
                ("keys", index, "backends"), f"there is no backend '{unknown}'; there are: {', '.join(names)}"
            )


def _check_aliases(document: Document, settings: Settings) -> None:
    backends = settings.backends or (BUNDLED_WORKER,)
    for where, message in routing_settings.mistakes(settings.aliases, {b.name: b.models for b in backends}):
        raise document.error(("aliases", *where), message)


def _refuse_repeats(document: Document, section: str, key: str, values: list[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise document.error((section, index, key), f"'{value}' is there twice; it must be unique")


# From msgspec's message to one with a line


def _explain(document: Document, detail: str) -> ConfigError:
    sentence, _, where = detail.partition(" - at `$")
    path: Path_ = tuple(
        int(index) if index else name
        for name, index in re.findall(r"\.?([A-Za-z_]\w*)|\[(\d+)\]", where.rstrip("`"))
    )
    unknown = re.match(r"Object contains unknown field `(.*)`", sentence)
    if unknown:
        return document.error((*path, unknown[1]), f"unknown key; allowed: {', '.join(_keys_at(path))}")
    if "matching regex" in sentence:
        return document.error(path, f"has the wrong form; expected: {_description_at(path)}")
    return document.error(path, f"{sentence.replace('`', chr(39))}{_allowed_at(path)}")


def _keys_at(path: Path_) -> list[str]:
    annotation = _annotation_at(path)
    return [field.encode_name for field in msgspec.structs.fields(annotation)]


def _allowed_at(path: Path_) -> str:
    """The alternatives of an enumeration, as the end of a sentence."""
    values = _literals(_annotation_at(path))
    return f"; allowed: {', '.join(values)}" if values else ""


def _description_at(path: Path_) -> str:
    """What `settings.py` says of the key at, or last before, the end of `path`."""
    names = [step for step in path if isinstance(step, str)]
    parent = _annotation_at(path[: path.index(names[-1])])
    field = next(f for f in msgspec.structs.fields(parent) if f.encode_name == names[-1])
    notes = (m.description for m in getattr(field.type, "__metadata__", ()) if isinstance(m, msgspec.Meta))
    return next((note for note in notes if note), "")


def _annotation_at(path: Path_) -> Any:
    """The type that `settings.py` gives to the value at `path`."""
    annotation: Any = Settings
    for step in path:
        if isinstance(step, int):
            annotation = get_args(_first(annotation, lambda t: get_origin(t) is tuple))[0]
        else:
            struct = _first(annotation, _is_struct)
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
            annotation = fields.get(str(step))
    return _first(annotation, _is_struct) or annotation


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def _first(annotation: Any, wanted: Callable[[Any], bool]) -> Any:
    """The annotation itself, or the first inside its `Annotated` and union wrappers, that is `wanted`."""
    if wanted(annotation):
        return annotation
    if get_origin(annotation) in (tuple, Literal):
        return None
    return next((f for part in get_args(annotation) if (f := _first(part, wanted)) is not None), None)


def _literals(annotation: Any) -> list[str]:
    literal = _first(annotation, lambda t: get_origin(t) is Literal)
    return [str(value) for value in get_args(literal)] if literal is not None else []


def _dotted(path: Path_) -> str:
    """`backends[0].url`"""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
