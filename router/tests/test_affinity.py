"""Sessions have a home that everybody computes alike."""

from __future__ import annotations

from sluice_router.affinity import home, session_key
from sluice_router.breaker import Breaker
from sluice_router.candidates import Pool
from sluice_router.replica import Replica
from sluice_router.types import Endpoint

SESSIONS = [f"session-{i}" for i in range(600)]


def replicas(*names: str) -> list[Replica]:
    return [
        Replica(Endpoint(id=n, backend="b", url=f"http://{n}"), Breaker(5, 5.0, 60.0, lambda: 0.5))
        for n in names
    ]


def homes(among: list[Replica], tenant: str = "t") -> dict[str, str]:
    pool = Pool(among)
    return {s: home(pool, session_key(tenant, s)).endpoint.id for s in SESSIONS}


def test_the_order_of_the_endpoints_does_not_matter():
    assert homes(replicas("a", "b", "c")) == homes(replicas("c", "a", "b"))


def test_sessions_spread_evenly():
    spread = homes(replicas("a", "b", "c"))

    for name in "abc":
        assert 150 < list(spread.values()).count(name) < 250


def test_when_an_endpoint_falls_ill_only_its_own_sessions_move():
    among = replicas("a", "b", "c")
    before = homes(among)

    among[1].healthy = False
    after = homes(among)

    assert all(after[s] == before[s] for s in SESSIONS if before[s] != "b")
    assert {after[s] for s in SESSIONS if before[s] == "b"} == {"a", "c"}


def test_tenants_do_not_share_a_session_by_its_name():
    among = replicas("a", "b", "c")

    assert homes(among, "one") != homes(among, "two")


def test_without_a_usable_endpoint_there_is_no_home():
    assert home(Pool(replicas()), session_key("t", "s")) is None


def test_the_hash_is_the_same_in_every_process_and_version():
    found = homes(replicas("a", "b", "c"))

    assert "".join(found[s] for s in SESSIONS[:8]) == "bbbcbbca"
