"""A million random events with five thousand requests on their engines at once: is a lease ever lost?

    python router/tests/perf/lease_storm_run.py [--events 1000000] [--seed 1]

`lease_storm.py` has the events and the audits; the suite runs a short one (`test_leases.py`). Prints what has
happened, how many leases were open at the audits, and how many were left in the end. An audit that fails ends
it with an `AssertionError`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lease_storm import LeaseStorm

import sluice_router.router


def main() -> None:
    """Run it, and print some lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    storm = LeaseStorm(options.seed)
    begun = time.process_time()
    storm.run(options.events)
    counts, audits, enough = storm.router.snapshot(), storm.audits, storm.at_least_wanted
    open_before, most = storm.on_engines, storm.most
    storm.end()
    spent_s = time.process_time() - begun
    kind = "Python sources" if str(sluice_router.router.__file__).endswith(".py") else "compiled modules"
    print(f"{options.events:,} events, seed {options.seed}, {kind}, {spent_s:.0f} s of CPU")
    print("  ".join(f"{name} {number:,}" for name, number in storm.events.most_common()))
    print("outcomes: " + "  ".join(f"{name.value} {number:,}" for name, number in counts.outcomes.items()))
    print(
        "second attempts: " + "  ".join(f"{name.value} {number:,}" for name, number in counts.hedges.items())
    )
    print(f"{audits:,} audits, {enough:,} of them with 5,000 leases open or more; at most {most:,}")
    print(f"{open_before:,} leases open at the end of the events; {storm.on_engines} once all were closed")


if __name__ == "__main__":
    main()
