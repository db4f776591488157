"""Real processes are killed by the dozen. What do clients see? The long run: `python -m tests.soak`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("postgres")
from postgres import Cluster, programs_or_skip  # noqa: E402 - it asserts
from soak.run import Order, laptop, many_machines, soak  # noqa: E402


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server that may be killed."""
    with Cluster(programs_or_skip()) as made:
        yield made


def test_nothing_is_lost_on_many_machines(cluster: Cluster, tmp_path: Path) -> None:
    report = soak(many_machines(tmp_path, cluster), Order(seed=1, faults=38))
    assert not report.violations, report.text


def test_nothing_is_lost_on_a_laptop(tmp_path: Path) -> None:
    report = soak(laptop(tmp_path), Order(seed=1, faults=24))
    assert not report.violations, report.text


def test_without_the_fence_tasks_end_twice(cluster: Cluster, tmp_path: Path) -> None:
    shape = many_machines(tmp_path, cluster, fenced=False)
    report = soak(shape, Order(seed=1, faults=2, fenced=False, weights={"stop": 1}))
    assert any("it has ended 2 times" in each for each in report.violations), report.text
