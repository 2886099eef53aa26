"""User journeys through a gateway, for Locust: soak tests and pass or fail, never for claims about latency.

    locust -f bench/locustfile.py --headless --users 4 --run-time 30s --host http://127.0.0.1:8000

Locust is a closed loop: users who wait for an answer ask less when a server is slow, so its figures leave
out what its users did not ask (`docs/bench.md`). Figures come from the definitions of `sluice_bench`, as
events `ttft`, `tpot`, `e2e`, and `left` for clients that leave in mid-answer. Everything but Locust's own
hooks is in `sluice_bench/journeys`. The process that starts the users' work, alone or as master, asks the
server what it can do; workers get the findings with its options.
"""

from __future__ import annotations

import os
import random
import sys
import time
from argparse import Namespace
from typing import Any, ClassVar, NoReturn

import gevent
import msgspec
import psutil
from gevent import GreenletExit
from locust import LoadTestShape, User, events, log, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.user.task import LOCUST_STATE_RUNNING, LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING

from sluice_bench.journeys.blocking_client import BlockingClient
from sluice_bench.journeys.capabilities import Findings, ProbeFailed, probe
from sluice_bench.journeys.dealer import Dealer
from sluice_bench.journeys.load_shapes import SHAPES, users_at
from sluice_bench.journeys.prompts import Prompts
from sluice_bench.journeys.summary import served, skipped, summary_lines
from sluice_bench.journeys.verdict import Limits, Row, checks
from sluice_bench.journeys.visitor import NEEDS, WEIGHTS, Event, Visitor, World
from sluice_bench.target import Target
from sluice_bench.workloads.corpus import CorpusError, load_corpus

_DEFAULT_HOST = "http://127.0.0.1:8000"
_DEFAULT_RUN_S = 30.0
_SEEDS_OF_A_RUN = 1000
"""One for each worker."""
_GRACE_S = 5.0


class RequestFailed(Exception):
    """What Locust is told of a request that went wrong."""


class JourneyUser(User):
    """Somebody who goes on one journey after the other. All users of a process share world and dealer."""

    world: ClassVar[World]
    dealer: ClassVar[Dealer]
    """Both are set before the first user starts."""

    def on_start(self) -> None:
        """Get a client, and a random source of one's own for the pauses."""
        options = _options(self.environment)
        self._think_s: float = options.think_s
        self._chance = random.Random(next(self.world.sessions))
        self._client = BlockingClient(self.world.target, options.request_timeout_s)
        self._visitor = Visitor(self.world, self._client, self._fire, self.wait)

    def on_stop(self) -> None:
        """Leave nothing open."""
        self._client.close()

    def stop(self, force: bool = False) -> bool:
        """Go home after the pause or the journey.

        Locust would kill a user who pauses, and would meet some whose pause is over at that very moment: with
        a request out, which would have no answer.
        """
        if force or self._state not in (LOCUST_STATE_RUNNING, LOCUST_STATE_WAITING):
            return bool(super().stop(force))
        self._state = LOCUST_STATE_STOPPING
        return False

    def wait_time(self) -> float:
        """Seconds between two steps: `--think-s`, half as much to half as much again."""
        return self._think_s * self._chance.uniform(0.5, 1.5)

    @task
    def journey(self) -> None:
        """The next one that is dealt."""
        name = self.dealer.next()
        try:
            self._visitor.go(name)
        except GreenletExit:
            if self._client.in_flight:
                self._fire(Event(kind="e2e", name=name, ms=None, failure="unanswered at the end of the run"))
            raise

    def _fire(self, event: Event) -> None:
        self.environment.events.request.fire(
            request_type=event.kind,
            name=event.name,
            response_time=event.ms,
            response_length=event.n_bytes,
            exception=RequestFailed(event.failure) if event.failure else None,
            context={},
        )


class ShapedLoad(LoadTestShape):
    """The shape of `--shape`, up to `--users`, over `--run-time`."""

    abstract = True  # Locust would use it at all times, and it is for `--shape` to say

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many may start in a second."""
        assert self.runner is not None
        options = _options(self.runner.environment)
        most = options.num_users or 1
        users = users_at(options.shape, most, options.run_time or _DEFAULT_RUN_S, self.get_run_time())
        return None if users is None else (users, float(min(most, 100)))


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """Ours, beside Locust's."""
    group = parser.add_argument_group("Journeys of Sluice's bench (a key is taken from OPENAI_API_KEY)")
    group.add_argument(
        "--journeys", default="mixed", help=f"mixed, or some of {','.join(NEEDS)}; with commas between"
    )
    group.add_argument("--shape", choices=SHAPES, default="steady", help="how the number of users changes")
    group.add_argument("--model", default="", help="model id; by default the first listed that answers")
    group.add_argument("--think-s", type=float, default=1.0, help="mean pause of a user, in seconds")
    group.add_argument("--request-timeout-s", type=float, default=60.0, help="limit of one request")
    group.add_argument("--seed", type=int, default=1, help="of the prompts' beginnings")
    group.add_argument(
        "--max-failed", type=float, default=0.01, help="a run with a larger share of failures has failed"
    )
    group.add_argument(
        "--p95-ttft-ms", type=float, default=2000.0, help="so has one with a longer p95 of TTFT"
    )
    group.add_argument("--p95-e2e-ms", type=float, default=15000.0, help="or of the whole answer")


@events.init.add_listener
def prepare(environment: Environment, runner: Runner, **_: Any) -> None:
    """Ask the server what it can do; set shape and patience. Ends the process when there is nothing to do."""
    options = _options(environment)
    environment.host = environment.host or _DEFAULT_HOST
    environment.stop_timeout = environment.stop_timeout or options.request_timeout_s
    if isinstance(runner, WorkerRunner):
        runner.register_message("finish", _finish, concurrent=True)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message("finished", _note_finished)
    if options.shape != "steady":
        environment.shape_class = ShapedLoad()
        environment.shape_class.runner = runner
    try:
        findings = _find(environment.host, options)
    except (ValueError, CorpusError, ProbeFailed) as error:
        _end(1, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    asked = _asked(options)
    for journey, why in skipped(findings, asked).items():
        print(f"SKIPPED {journey}: {why}", file=sys.stderr)  # noqa: T201
    if not served(findings, asked):
        _end(2, f"Nothing of {', '.join(asked)} can be served at {environment.host}.")
    options.findings = msgspec.to_builtins(findings)


def _asked(options: Namespace) -> list[str]:
    """Names of journeys. Raises `ValueError` when one does not exist."""
    names = list(NEEDS) if options.journeys == "mixed" else options.journeys.replace(",", " ").split()
    if unknown := [name for name in names if name not in NEEDS]:
        raise ValueError(f"there is no journey {unknown[0]!r}; there are mixed, {', '.join(NEEDS)}")
    return names


def _find(url: str, options: Namespace) -> Findings:
    _asked(options)  # a typing error is told before the server is asked
    client = BlockingClient(target := Target.parse(url), options.request_timeout_s)
    try:
        prompts = Prompts(load_corpus(), _seed(options, 0))
        return probe(target, client.send, _api_key(), prompts, options.model or None)
    finally:
        client.close()


def _seed(options: Namespace, worker: int) -> int:
    """0 is the probes', the workers' begin with 1."""
    return int(options.seed) * _SEEDS_OF_A_RUN + worker


@events.test_start.add_listener
def populate(environment: Environment, **_: Any) -> None:
    """In the processes that have users: what these share, from what was found."""
    if isinstance(environment.runner, MasterRunner):
        return
    options = _options(environment)
    findings = msgspec.convert(options.findings, Findings)
    worker = max(0, getattr(environment.runner, "worker_index", 0))
    prompts = Prompts(load_corpus(), _seed(options, 1 + worker))
    JourneyUser.world = World(Target.parse(environment.host or _DEFAULT_HOST), findings, prompts, _api_key())
    JourneyUser.dealer = Dealer({name: WEIGHTS[name] for name in served(findings, _asked(options))})


@events.test_stopping.add_listener
def let_workers_finish(environment: Environment, **_: Any) -> None:
    """As master, wait until the workers' users have their answers: Locust would end them in the middle, and
    the slowest requests would be in no figure."""
    runner = environment.runner
    if not isinstance(runner, MasterRunner):
        return
    options = _options(environment)
    workers = len(runner.clients.all)
    options.finished_workers = 0
    runner.send_message("finish")
    give_up_s = time.monotonic() + environment.stop_timeout + _GRACE_S
    while options.finished_workers < workers and time.monotonic() < give_up_s:
        gevent.sleep(0.1)


def _finish(environment: Environment, **_: Any) -> None:
    """As worker: no new journeys; say when the last one is over."""
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)
    runner.stop()
    runner.send_message("finished")


def _note_finished(environment: Environment, **_: Any) -> None:
    _options(environment).finished_workers += 1


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Set the exit status, and have the summary printed after Locust's own tables."""
    options = _options(environment)
    if isinstance(environment.runner, WorkerRunner) or not hasattr(options, "findings"):
        return
    rows = _rows(environment)
    limits = Limits(
        failed_share=options.max_failed, ttft_p95_ms=options.p95_ttft_ms, e2e_p95_ms=options.p95_e2e_ms
    )
    verdict = checks(rows, limits, _troubles(environment))
    findings = msgspec.convert(options.findings, Findings)
    lines = list(summary_lines(str(environment.host), findings, _asked(options), rows, verdict))
    environment.process_exit_code = 0 if all(check.good for check in verdict) else 1
    environment.events.quit.add_listener(lambda **_: print("\n".join(lines), flush=True))  # noqa: T201


def _rows(environment: Environment) -> list[Row]:
    return [
        Row(
            kind=entry.method,
            name=entry.name,
            count=entry.num_requests,
            failed=entry.num_failures,
            times_ms={float(time_ms): count for time_ms, count in entry.response_times.items()},
        )
        for entry in environment.stats.entries.values()
    ]


def _troubles(environment: Environment) -> list[str]:
    """What makes a run worth nothing, whatever the server did."""
    runner = environment.runner
    assert runner is not None
    found = []
    if runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted:
        found.append("Locust used more than 90 % of a core and stamped late: use --processes, or fewer users")
    if runner.exceptions or log.unhandled_greenlet_exception:
        found.append("the test itself broke; see the traceback above")
    if isinstance(runner, MasterRunner) and runner.clients.missing:
        found.append(f"{len(runner.clients.missing)} workers were lost, with what they had measured")
    return found


def _options(environment: Environment) -> Namespace:
    options: Namespace | None = environment.parsed_options
    assert options is not None
    return options


def _api_key() -> str | None:
    return os.environ.get("OPENAI_API_KEY") or None


def _end(status: int, sentence: str) -> NoReturn:
    """Before the run. Workers that `--processes` forked would wait for their master for ever."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201
    for worker in psutil.Process().children():
        worker.terminate()
    sys.exit(status)
