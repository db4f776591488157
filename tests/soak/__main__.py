"""`python -m tests.soak --faults 400 --seed 7`: both shapes, one after the other."""

import argparse
import sys
import tempfile
from pathlib import Path

# The tests are no package: pytest, too, has their folder on its path.
sys.path.insert(0, str(Path(__file__).parents[1]))

from postgres import Cluster, folder_of_programs

from soak.run import Order, Report, laptop, many_machines, soak


def main() -> int:
    """Runs what is asked for; 1 where something was violated, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--faults", type=int, default=400, help="how many in all, two thirds on PostgreSQL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", choices=["both", "postgresql", "sqlite"], default="both")
    parser.add_argument("--without-fence", action="store_true", help="then it has to go red")
    asked = parser.parse_args()
    share = 2 * asked.faults // 3 if asked.shape == "both" else asked.faults
    red = False
    with tempfile.TemporaryDirectory(prefix="wavemock-soak-") as folder:
        order = Order(seed=asked.seed, faults=share, fenced=not asked.without_fence)
        if asked.shape != "sqlite":
            programs = folder_of_programs()
            if programs is None:
                parser.error("PostgreSQL (initdb and postgres) is not installed")
            with Cluster(programs) as cluster:
                red |= told(soak(many_machines(Path(folder) / "many", cluster, fenced=order.fenced), order))
        if asked.shape != "postgresql":
            order = Order(seed=asked.seed, faults=asked.faults - share or asked.faults, fenced=order.fenced)
            red |= told(soak(laptop(Path(folder) / "laptop", fenced=order.fenced), order))
    return int(red)


def told(report: Report) -> bool:
    """Prints a report; whether it is red."""
    print(report.text, flush=True)
    return bool(report.violations)


if __name__ == "__main__":
    sys.exit(main())
