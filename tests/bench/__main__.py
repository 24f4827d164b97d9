"""`python -m tests.bench NAME`: measurements by hand, each with --help."""

from __future__ import annotations

import sys

from tests.bench import pool

BENCHES = {"pool": pool.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHES:
        sys.exit(f"usage: python -m tests.bench {{{','.join(BENCHES)}}} [--help]")
    BENCHES[sys.argv[1]](sys.argv[2:])
