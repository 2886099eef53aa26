"""What is written about the configuration is what the code has."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sluice_gateway import config, reference
from sluice_gateway.response import EXPOSED

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / "sluice.example.yaml"


def test_the_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text() == reference.render() + "\n", (
        "run: sluice config reference > docs/configuration.md"
    )


def test_every_key_has_a_meaning() -> None:
    for name, struct in reference.sections():
        for field in msgspec.structs.fields(struct):
            assert f"| `{field.encode_name}` |" in PAGE.read_text(), f"{name}.{field.encode_name}"
            assert reference.meaning(field.type), f"{name}.{field.encode_name} has no description"


def test_every_response_header_is_documented() -> None:
    page = PAGE.read_text()
    for header in EXPOSED:
        assert f"`{header}`" in page


def test_the_example_is_valid_and_shows_every_section() -> None:
    text = EXAMPLE.read_text()
    settings = config.parse("sluice.example.yaml", text, {"OPENROUTER_API_KEY": "x"})
    for name, struct in reference.sections():
        for field in msgspec.structs.fields(struct):
            assert f"{field.encode_name}:" in text, f"{name}.{field.encode_name} is not in the example"
    assert settings.backends[0].name == "worker"
