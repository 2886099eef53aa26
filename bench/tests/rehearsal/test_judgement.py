"""What a scene calls good and what it calls broken, with invented outcomes: no check is always met."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sluice_bench.records import Chunk, Failure, RequestRecord
from sluice_bench.rehearsal.asking import Outcome
from sluice_bench.rehearsal.conversations import TURNS, conversations_finding
from sluice_bench.rehearsal.death import death_finding
from sluice_bench.rehearsal.finding import Check, Finding, lines
from sluice_bench.rehearsal.flood import FLOODER, flood_finding
from sluice_bench.rehearsal.hedging import Pause, Trial, hedging_finding
from sluice_bench.rehearsal.program import SCENES, chosen
from sluice_bench.rehearsal.refusals import CODE, EACH, crowd_finding, impatience_finding
from sluice_bench.rehearsal.slow_worker import slow_worker_finding
from sluice_bench.rehearsal.stage import QUICK, SLOW, TENANTS

MESSAGE = "would not begin within 0.05 s, which is what X-SLO-TTFT-Ms allows"


def served(
    backend: str = QUICK, at: int = 0, tokens: int = 10, waited: int = 0, hedged: bool = False, **more: int
) -> Outcome:
    """Begun and ended at that time, at once or after a while."""
    record = RequestRecord(
        index=0,
        stream=True,
        status=200,
        backend=backend,
        scheduled_ns=at - waited,
        first_token_ns=at + 1,
        end_ns=at + 2,
        chunks=(Chunk(at + 1, tokens, 1),),
        **more,
    )
    return Outcome(record=record, route=f"reason={'hedge,' if hedged else ''}least_loaded")


def refused(code: str = CODE, retry_after_s: float | None = 1.0, at: int = 0, message: str = "") -> Outcome:
    record = RequestRecord(
        index=0,
        stream=True,
        status=429,
        scheduled_ns=at,
        end_ns=at,
        failure=Failure.HTTP_STATUS,
        message=message,
    )
    return Outcome(record=record, code=code, retry_after_s=retry_after_s)


def cut(begun: bool) -> Outcome:
    record = RequestRecord(
        index=0,
        stream=True,
        status=200 if begun else 502,
        backend=QUICK,
        scheduled_ns=0,
        first_token_ns=1 if begun else None,
        end_ns=2,
        failure=Failure.STREAM_ERROR if begun else Failure.HTTP_STATUS,
    )
    return Outcome(record=record)


def crowd_of(tries: Sequence[Outcome], others: int = len(TENANTS) * EACH - 4) -> Finding:
    """Four clients with these tries, and others who are served."""
    return crowd_finding([*[[served()]] * others, *[tries] * 4])


def test_a_crowd_whose_refused_come_back_as_told_and_are_let_in_is_good() -> None:
    assert crowd_of([refused(), served()]).broken() == []


@pytest.mark.parametrize(
    ("tries", "said"),
    [
        ([served()], "0 of 36 clients were refused"),
        ([refused(code="other"), served()], "each of 4 refusals was"),
        ([refused(retry_after_s=None)], "each of 4 refusals was"),
        ([refused(), refused(), served()], "0 of 4 were let in when they first came back"),
        (
            [refused(), refused()],
            "32 of 36 clients were served; one was not: 429 rate_limit_exceeded http_status: ",
        ),
    ],
)
def test_a_crowd_that_is_treated_otherwise_is_not(tries: list[Outcome], said: str) -> None:
    assert any(line.startswith(said) for line in crowd_of(tries).broken())


def test_whoever_cannot_wait_is_refused_for_that_and_before_those_who_wait_begin() -> None:
    patient = [served(at=10), served(at=20)]

    assert impatience_finding(patient, [refused(message=MESSAGE, at=15)]).broken() == []
    assert len(impatience_finding(patient, [served(at=30)]).broken()) == 2
    assert len(impatience_finding(patient, [refused(message=MESSAGE, at=30)]).broken()) == 1
    assert len(impatience_finding(patient, [refused(message="The queue is full.", at=15)]).broken()) == 1
    assert len(impatience_finding([*patient, refused()], [refused(message=MESSAGE)]).broken()) == 1


def flood_of(calm: Sequence[Outcome], flooding: Sequence[Outcome]) -> Finding:
    return flood_finding({t: flooding if t == FLOODER else calm for t in TENANTS})


def test_a_flood_in_which_others_keep_their_part_is_good() -> None:
    assert flood_of([served(), served(at=10)], [served(), refused()]).broken() == []


@pytest.mark.parametrize(
    ("calm", "flooding"),
    [
        ([served(), served(at=10), refused()], [served(), refused()]),
        ([served(), served(at=10)], [served(), served()]),
        ([served(), served(at=10)], [served(), refused(retry_after_s=None)]),
        ([served(), served(at=10)], [served(), refused(), cut(begun=False)]),
        ([served(), served(at=10)], [served(tokens=21), refused()]),
    ],
    ids=["another refused", "never refused", "without a time", "failed", "most of the tokens"],
)
def test_a_flood_that_drowns_somebody_is_not(calm: list[Outcome], flooding: list[Outcome]) -> None:
    assert flood_of(calm, flooding).broken() != []


def test_what_came_when_not_everybody_waited_any_more_is_in_no_share() -> None:
    late = served(at=1000, tokens=999)

    assert flood_of([served(), served(at=10)], [served(), refused(), late]).broken() == []


def test_a_slow_worker_may_have_less_than_a_third() -> None:
    assert slow_worker_finding([served()] * 67 + [served(SLOW)] * 33).broken() == []
    assert len(slow_worker_finding([served()] * 66 + [served(SLOW)] * 33).broken()) == 1
    assert len(slow_worker_finding([served()] * 77 + [cut(begun=True)]).broken()) == 1


def talk(backends: str, cached: Sequence[int]) -> list[Outcome]:
    """A conversation of prompts that grow by a hundred tokens; `backends` has a letter for each turn."""
    return [
        served(backend, prompt_tokens=100 * (turn + 1), cached_tokens=tokens)
        for turn, (backend, tokens) in enumerate(zip(backends, cached, strict=True))
    ]


WARM = talk("a" * TURNS, [100 * turn for turn in range(TURNS)])


def test_conversations_that_stay_where_they_are_cached_are_good() -> None:
    assert conversations_finding([WARM], [WARM]).broken() == []


@pytest.mark.parametrize(
    ("plain", "named"),
    [
        (talk("ababa", [100 * turn for turn in range(TURNS)]), WARM),
        (WARM, talk("aaaab", [100 * turn for turn in range(TURNS)])),
        (talk("aaaaa", [0] * TURNS), talk("aaaaa", range(TURNS))),
        (WARM, talk("aaaaa", [0, 100, 200, 300, 300])),
        ([*WARM[:-1], cut(begun=True)], WARM),
    ],
    ids=["by turns", "a name that moved", "nothing cached", "no more cached", "a turn lost"],
)
def test_conversations_that_wander_are_not(plain: list[Outcome], named: list[Outcome]) -> None:
    assert conversations_finding([plain], [named]).broken() != []


def test_a_death_may_cut_what_had_begun_and_nothing_else() -> None:
    around = [served(SLOW)] * 20
    after = [served(SLOW), served(QUICK)]

    assert death_finding([*around, cut(begun=True)], after).broken() == []
    assert death_finding([*around, cut(begun=False)], after).broken() != []
    assert death_finding([*around, refused()], after).broken() != []
    assert death_finding([*around, *[cut(begun=True)] * 5], after).broken() != []
    assert death_finding(around, [*after, refused()]).broken() != []
    assert death_finding(around, [served(SLOW)]).broken() != []


CALM = [served(), served(SLOW)] * 50


def trial(met: Sequence[Outcome], won: int = 0, lost: int = 0, calm: Sequence[Outcome] = CALM) -> Trial:
    """Each of these met with a pause that was over at 1000; `calm` requests around them."""
    hedges = {"won": won, "lost": lost, "no_room": 7}
    return Trial(calm[:20], calm[20:], [Pause(1000, [outcome, served(SLOW)]) for outcome in met], hedges)


LATE, HEDGED = served(at=2000, waited=2000), served(SLOW, at=300, waited=300, hedged=True)
WITHOUT = trial([LATE] * 2)
WITH = trial([HEDGED] * 2, won=2)


def test_whoever_is_answered_elsewhere_during_a_pause_is_hedged_well() -> None:
    assert hedging_finding(WITHOUT, WITH).broken() == []
    one_of_two = hedging_finding(WITHOUT, trial([HEDGED, LATE], won=1))
    assert one_of_two.broken(quiet=False) == []
    assert one_of_two.broken() == [
        "the 99th percentile of TTFT is 100% of what it is without; it must be less than half"
    ]


@pytest.mark.parametrize(
    ("without", "usual", "said"),
    [
        (trial([cut(begun=False)] * 2), WITH, "206 of 208 requests"),
        (trial([served(at=300)] * 2), WITH, "without second attempts 2 of 2"),
        (trial([served(SLOW)] * 2), WITH, "without second attempts 0 of 0"),
        (trial([LATE] * 2, lost=1), WITH, "the gateway counts 2"),
        (WITHOUT, trial([LATE] * 2), "with them 0 of 2"),
        (WITHOUT, trial([served(SLOW)] * 2), "with them 0 of 0"),
        (WITHOUT, trial([served(SLOW, at=2000, hedged=True)] * 2, won=2), "with them 0 of 2"),
        (WITHOUT, trial([HEDGED] * 2, won=1), "the gateway counts 1"),
        (WITHOUT, trial([HEDGED] * 2, won=2, lost=1), "3 second attempts for 104"),
    ],
)
def test_hedging_that_does_not_help_or_is_too_much_is_not(without: Trial, usual: Trial, said: str) -> None:
    broken = hedging_finding(without, usual).broken(quiet=False)

    assert [line.startswith(said) for line in broken] == [True]


def test_a_finding_is_a_table_and_what_had_to_be_so() -> None:
    found = Finding(
        title="A scene",
        promise="All stay.",
        header=("who", "n"),
        rows=(("ada", "12"),),
        checks=(Check("12 came", True), Check("nobody left", False), Check("soon", False, needs_quiet=True)),
    )

    assert list(lines(found)) == [
        "## A scene",
        "",
        "All stay.",
        "",
        "| who | n  |",
        "| --- | -- |",
        "| ada | 12 |",
        "",
        "- ok: 12 came",
        "- BROKEN: nobody left",
        "- BROKEN: soon (on a quiet machine)",
        "",
    ]
    assert found.broken() == ["nobody left", "soon"]
    assert found.broken(quiet=False) == ["nobody left"]


def test_scenes_keep_their_order_whatever_was_typed() -> None:
    assert chosen([]) == list(SCENES)
    assert chosen(["death", "crowd"]) == ["crowd", "death"]
    with pytest.raises(ValueError, match="does not know fly; choose from "):
        chosen(["fly"])
