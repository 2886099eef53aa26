"""From deltas to text: stop strings, end tokens, half characters and log-probabilities together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from parrot import FIRST_BYTE, byte_tokenizer, token_ids

from sluice_worker.outputs import FinishReason, SequenceDelta, TokenLogprobs
from sluice_worker.server.choice import Choice, OutputToken, Piece
from sluice_worker.server.detokenizer import Detokenizer
from sluice_worker.server.tokenizer import Tokenizer, TokenizerConfig

TOKENIZER = Tokenizer(byte_tokenizer(), TokenizerConfig())
END_ID, NOISE_ID = 0, 2


def new_choice(*stops: str, min_tokens: int = 0) -> Choice:
    detokenizer = Detokenizer(TOKENIZER, skip_special_tokens=True, strip_first_space=True)
    return Choice(0, detokenizer, stops, min_tokens)


def delta(ids: list[int], reason: FinishReason | None = None) -> SequenceDelta:
    logprobs = [TokenLogprobs(-float(token_id), [], []) for token_id in ids]
    return SequenceDelta(request_id="r", new_token_ids=ids, logprobs=logprobs, finish_reason=reason)


def run(choice: Choice, ids: list[int], reason: FinishReason, step: int = 1) -> list[Piece]:
    """Feed ids in steps of some tokens, until the choice has ended."""
    pieces = []
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        pieces.append(choice.accept(delta(part, reason if start + step >= len(ids) else None)))
        if choice.finish_reason:
            break
    return pieces


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def tokens(pieces: list[Piece]) -> list[OutputToken]:
    return [token for piece in pieces for token in piece.tokens]


def test_the_end_token_ends_the_text_and_is_no_part_of_it() -> None:
    choice = new_choice()

    pieces = run(choice, [*token_ids("hi"), END_ID], "stop")

    assert text(pieces) == "hi"
    assert pieces[-1].finish_reason == "stop"
    assert [token.token_id for token in tokens(pieces)] == token_ids("hi")
    assert choice.completion_tokens == 3


def test_a_stop_string_ends_the_choice_before_the_engine_does() -> None:
    choice = new_choice("STOP")

    pieces = run(choice, token_ids("one STOP two"), "length")

    assert text(pieces) == "one "
    assert choice.finish_reason == "stop"
    assert choice.completion_tokens == len("one STOP")
    assert [token.token_id for token in tokens(pieces)] == token_ids("one ")


def test_text_held_back_is_let_out_when_the_length_is_reached() -> None:
    pieces = run(new_choice("STOP"), token_ids("one STO"), "length")

    assert text(pieces) == "one STO"
    assert pieces[-1].finish_reason == "length"
    assert len(tokens(pieces)) == len("one STO")


def test_stop_strings_are_not_looked_for_before_min_tokens() -> None:
    assert text(run(new_choice("a", min_tokens=2), token_ids("aaba"), "length")) == "aab"


def test_tokens_wait_for_their_text() -> None:
    euro = [byte + FIRST_BYTE for byte in "€".encode()]

    pieces = run(new_choice(), [*euro, *token_ids("x")], "length")

    assert [(piece.text, len(piece.tokens)) for piece in pieces] == [("", 0), ("", 0), ("€", 3), ("x", 1)]
    assert [token.text_offset for token in tokens(pieces)] == [0, 0, 0, 1]


def test_a_half_character_at_the_end_is_shown_as_broken_and_keeps_its_token() -> None:
    pieces = run(new_choice(), [*token_ids("x"), "€".encode()[0] + FIRST_BYTE], "length")

    assert text(pieces) == "x\ufffd"
    assert len(tokens(pieces)) == 2


ids = st.lists(
    st.one_of(st.sampled_from(token_ids("ab€")), st.just(NOISE_ID), st.integers(FIRST_BYTE, 258)), max_size=25
)
stop_sets = st.lists(st.text(alphabet="ab€", min_size=1, max_size=3), max_size=3).map(tuple)


@given(ids=ids, stops=stop_sets, step=st.integers(1, 4), reason=st.sampled_from(["stop", "length"]))
@settings(max_examples=500, deadline=None)
def test_whatever_the_steps_the_answer_is_the_same(
    ids: list[int], stops: tuple[str, ...], step: int, reason: FinishReason
) -> None:
    ids = [*ids, END_ID] if reason == "stop" else [*ids, *token_ids("b")]
    one, several = new_choice(*stops), new_choice(*stops)

    pieces, coarse = run(one, ids, reason), run(several, ids, reason, step)

    assert text(pieces) == text(coarse)
    assert tokens(pieces) == tokens(coarse)
    assert one.finish_reason == several.finish_reason
    assert one.completion_tokens == several.completion_tokens
    # Each token once, in order, from the first on; all of them unless a stop string cut some off.
    count = len(tokens(pieces))
    shown = ids[:-1] if reason == "stop" else ids
    assert [token.token_id for token in tokens(pieces)] == shown[:count]
    assert count == len(shown) or one.completion_tokens <= len(shown)
    assert not any(stop in text(pieces) for stop in stops)
