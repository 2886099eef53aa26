"""How many tokens a prompt has, as far as its bytes tell."""

from __future__ import annotations

import json

import pytest

from sluice_gateway.facts import BodyFacts, decode
from sluice_gateway.prompt_size import BYTES_PER_TOKEN, IMAGE_TOKENS, measure, script_of
from sluice_router.types import SCRIPTS

TEXTS = {
    "latin": "The router holds a ledger of what every engine has been given. ",
    "accented": "Où est la bibliothèque ? Elle a été déplacée près de l'hôtel, à côté du café. ",
    "two_byte": "Маршрутизатор ведёт учёт того, что получил каждый движок. ",
    "three_byte": "路由器记录每个引擎收到的内容，并据此决定下一个请求。",
}


def test_every_script_has_a_start_and_the_router_knows_it() -> None:
    assert tuple(BYTES_PER_TOKEN) == SCRIPTS


@pytest.mark.parametrize("times", [1, 10, 2000])
@pytest.mark.parametrize("script", TEXTS)
def test_a_script_is_told_from_its_bytes_however_long_the_text(script: str, times: int) -> None:
    text = json.dumps(TEXTS[script] * times, ensure_ascii=False).encode()

    assert script_of(memoryview(text)) == script


@pytest.mark.parametrize("script", ["two_byte", "three_byte"])
def test_text_that_a_client_escaped_is_known_as_such(script: str) -> None:
    assert script_of(memoryview(json.dumps(TEXTS[script] * 500).encode())) == "escaped"


def test_code_with_a_few_escapes_is_latin() -> None:
    assert script_of(memoryview(json.dumps('print("é")\n' * 3 + "x = 1\n" * 400).encode())) == "latin"


def test_characters_that_are_cut_by_the_sample_do_no_harm() -> None:
    for shift in range(6):
        text = ("a" * shift + TEXTS["three_byte"] * 400).encode()
        assert script_of(memoryview(text)) == "three_byte"


def test_english_has_about_four_bytes_a_token() -> None:
    assert measure([memoryview(b"x" * 400)]).tokens == 101
    assert measure([]).tokens == 1


def facts(content: object) -> BodyFacts:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    found = decode("chat", json.dumps(body, ensure_ascii=False).encode())
    assert isinstance(found, BodyFacts)
    return found


def test_an_image_weighs_what_it_costs_a_model_and_not_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}

    found = facts([{"type": "text", "text": "What is this?"}, image, image])

    assert found.script == "images"
    assert 2 * IMAGE_TOKENS < found.prompt_tokens_estimate < 2 * IMAGE_TOKENS + 200


def test_text_that_quotes_a_data_url_is_text() -> None:
    found = facts('"data:image/png;base64,' + "A" * 4000 + '"')

    assert found.script == "latin"
    assert found.prompt_tokens_estimate > 1000


def test_the_script_of_a_chat_is_told_to_the_router() -> None:
    found = facts(TEXTS["three_byte"] * 20)

    assert found.script == "three_byte"
    bytes_of_text = len((TEXTS["three_byte"] * 20).encode())
    assert bytes_of_text / 2 < found.prompt_tokens_estimate < bytes_of_text / 2 + 40
