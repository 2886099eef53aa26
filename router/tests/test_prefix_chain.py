"""Prompts share a beginning exactly as far as their chains do."""

from __future__ import annotations

import json
from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from sluice_router.prefix_chain import BLOCK_BYTES, MAX_BLOCKS, chain

MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=400)}),
    min_size=1,
    max_size=8,
)
TOOLS = [b'{"type":"function","function":{"name":"' + b"f" * 300 + b'"}}']


def of(growing: bytes, *complete: bytes, tenant: str = "t", model: str = "m") -> tuple[int, ...]:
    return chain(tenant, model, complete, growing)


def words(count: int) -> bytes:
    return b'"' + b" ".join(b"word%d" % number for number in range(count)) + b'"'


@given(messages=MESSAGES, more=MESSAGES, indent=st.sampled_from([None, 0, 2]), escaped=st.booleans())
def test_the_next_turn_begins_with_the_whole_chain_of_the_turn_before(messages, more, indent, escaped):
    first, second = (
        of(json.dumps(turn, indent=indent, ensure_ascii=escaped).encode(), *TOOLS)
        for turn in (messages, messages + more)
    )

    assert second[: len(first)] == first


@given(common=st.binary(max_size=1500), one=st.binary(max_size=600), other=st.binary(max_size=600))
def test_chains_are_equal_as_far_as_the_bytes_are(common, one, other):
    first, second = (b'["' + common + rest + b'"]' for rest in (one, other))
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first[:-1], second[:-1], strict=False))
    shared = len(list(alike)) // BLOCK_BYTES

    chains = of(first), of(second)

    assert chains[0][:shared] == chains[1][:shared]
    assert not set(chains[0][shared:]) & set(chains[1][shared:])


@given(text=st.text(max_size=2000))
def test_a_prompt_that_goes_on_begins_with_the_chain_of_the_shorter_one(text):
    first, second = (of(json.dumps(prompt).encode()) for prompt in (text, text + " and so on" * 40))

    assert second[: len(first)] == first


def test_there_is_a_number_for_each_full_block():
    assert of(b'"' + b"x" * (BLOCK_BYTES - 2) + b'"') == (), "the quote at its end is not a part of it"
    assert len(of(b'"' + b"x" * (BLOCK_BYTES - 1) + b'"')) == 1
    assert len(of(b'"' + b"x" * (3 * BLOCK_BYTES) + b'"')) == 3


def test_spaces_before_the_closing_bracket_are_not_a_part_of_the_prompt():
    message = b'[{"role":"user","content":"' + b"x" * (BLOCK_BYTES - 29) + b'"}'
    assert len(message) == BLOCK_BYTES

    assert of(message + b"]") == of(message + b"\n \t]")
    assert len(of(message[:-1] + b" \n]")) == 0


def test_what_is_complete_is_a_part_of_all_that_follows():
    prompt = words(200)
    alone, with_tools = of(prompt), of(prompt, *TOOLS)

    assert len(with_tools) == len(alone) + 1, "the full block of the tools"
    assert not set(alone) & set(with_tools)
    assert of(prompt, b"null") != of(prompt, b"nul", b"l"), "parts are not run together"


def test_tenants_and_models_share_nothing():
    chains = [of(words(200), tenant=t, model=m) for t, m in (("a", "m"), ("b", "m"), ("a", "n"))]

    assert len({number for numbers in chains for number in numbers}) == sum(map(len, chains))


def test_a_chain_ends_somewhere():
    assert len(of(b'"' + bytes(BLOCK_BYTES * (MAX_BLOCKS + 5)) + b'"', *TOOLS)) == MAX_BLOCKS


def test_the_hash_is_the_same_in_every_process_and_version():
    assert [f"{number:016x}" for number in of(words(60))] == ["21a0f6948184f0d0"]


def test_what_is_no_json_has_a_chain_all_the_same():
    for odd in (b"", b"[", b"]", b'"', b"[ ]", b"   ", b"7" * 600):
        assert isinstance(of(odd), tuple)
        assert isinstance(of(odd, words(100)), tuple)
