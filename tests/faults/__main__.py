"""Is anything lost, early or performed again for no reason, whatever happens?

python -m tests.faults --minutes 10 --seed 1     this build, under every fault
python -m tests.faults --mutants                 builds with a fault put in on purpose: is each seen?
"""

from __future__ import annotations

import argparse
import sys

import anyio

from tests.faults.campaign import Plan, run
from tests.faults.mutants import hunt_all
from tests.faults.nemesis import KINDS

SHOWN = 5


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--daemons", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="FAULT", help=", ".join(KINDS))
    parser.add_argument("--mutants", action="store_true")
    said = parser.parse_args()
    if said.mutants:
        return _show_mutants(said.seed)
    return _show_this_build(Plan(seed=said.seed, seconds=said.minutes * 60, daemons=said.daemons, kinds=said.kinds))


def _show_this_build(plan: Plan) -> int:
    report = anyio.run(run, plan)
    print(report)
    for name, cases in report.verdict.found.items():
        for case in cases[:SHOWN]:
            print(f"\n{name}: {case}")
    return 0 if report.verdict.clean else 1


def _show_mutants(seed: int) -> int:
    missed = 0
    for sighting in hunt_all(seed):
        print(sighting, flush=True)
        missed += not sighting.expected
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
