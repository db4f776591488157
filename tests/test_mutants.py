"""The wrong servers are wrong, each in its own way, and the harness tells who found what."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from connexion.spec import OpenAPISpecification
from mutants import run, trial, wrapped
from mutants.client import Client
from mutants.contracts import CHANGED
from mutants.mutant import Mutant, either, field, message, rule
from mutants.population import population
from mutants.server import changed, real
from mutants.trial import Order, Trial
from reports import a_case, a_finding

from contract_tests.case import Finding

EDITIONS = ("current", "flux-lora")
FIRST = {mutant.family: mutant for mutant in reversed(list(population().values()))}
QUICK = ("defaults", "protocol", "lifecycle", "boundary", "raw", "judges")
MAX = "num_images max + a step (v3/flux-dev-lora)"
DEFAULT = "num_inference_steps default is 28 (v3/flux-schnell-lora)"


def test_there_are_many_mutants_of_many_families() -> None:
    assert len(population()) >= 200
    assert len({mutant.family for mutant in population().values()}) >= 30


def test_no_two_mutants_change_the_contracts_alike() -> None:
    seen: dict[str, str] = {}
    population()
    for name, (models, change, edition) in CHANGED.items():
        contracts = changed(models, change, edition)[edition].contracts
        text = json.dumps([edition, {key: each.schema for key, each in contracts.items()}], sort_keys=True)
        assert seen.setdefault(text, name) == name


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """A client of a server without a fault, for each edition."""
    clients = {edition: Client(real(tmp_path_factory.mktemp("right"), edition)) for edition in EDITIONS}
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture(scope="module")
def outcomes(
    right: dict[str, Client], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    """What each mutant shows, and what a right server does at the same place."""
    directory = tmp_path_factory.mktemp("wrong")
    with pytest.MonkeyPatch.context() as patch:
        # Whoever stands before a server can stand before the same one; it forgets all in between.
        patch.setattr(wrapped, "real", lambda _, edition: right[edition].app)
        # Contracts that are wrong are OpenAPI still, and each of them is read for a few requests alone.
        patch.setattr(OpenAPISpecification, "_validate_spec", lambda *_: None)
        return {
            mutant.name: _outcome(mutant, right[mutant.edition], directory)
            for mutant in population().values()
        }


def _outcome(mutant: Mutant, good: Client, directory: Path) -> tuple[str, str]:
    wrong = Client(mutant.make(directory))
    try:
        return _shown(mutant, wrong), _shown(mutant, good)
    finally:
        wrong.close()


def _shown(mutant: Mutant, client: Client) -> str:
    client.ask("POST", "/_mock/reset")
    client.clock(freeze=True)
    return repr(mutant.shows(client))


def test_every_mutant_shows_something_that_a_right_server_does_not(
    outcomes: dict[str, tuple[str, str]],
) -> None:
    assert [name for name, (wrong, right) in outcomes.items() if wrong == right] == []


def test_no_two_mutants_answer_the_same_questions_alike(outcomes: dict[str, tuple[str, str]]) -> None:
    seen: dict[Any, str] = {}
    alike = []
    for mutant in population().values():
        shows = mutant.shows
        asked = (shows.func, shows.args, repr(shows.keywords)) if isinstance(shows, partial) else shows
        key = (mutant.edition, asked, outcomes[mutant.name][0])
        if seen.setdefault(key, mutant.name) != mutant.name:
            alike.append((seen[key], mutant.name))
    assert alike == []


def _finding(name: str = "", *, about: str = "range", says: str = "", model: str = "v3/a") -> Finding:
    return a_finding(
        "refuted", case=a_case("max+1", model=model, field=name, rule=about, says=""), message=says
    )


def test_a_finding_about_a_part_of_a_field_is_about_the_field() -> None:
    assert field("loras")(_finding("loras[].scale"))
    assert field("data.urls.get")(_finding("data.urls"))


def test_a_finding_about_another_field_of_data_is_not_about_the_field() -> None:
    assert not field("data.id")(_finding("data.model"))
    assert not field("data.id")(_finding("data"))


def test_a_finding_about_another_model_is_not_about_the_field() -> None:
    assert not field("seed", models=("v2/a",))(_finding("seed"))


def test_a_finding_that_names_the_field_in_words_is_about_it() -> None:
    assert field("data.status")(_finding(says="data.status: went back"))
    assert not field("data")(_finding(says="data.status: went back"))
    assert not field("steps")(_finding(says="num_inference_steps: 51 was accepted"))


def test_a_finding_can_be_known_by_its_rule_its_label_or_its_words() -> None:
    assert rule("range")(_finding())
    assert rule("max*")(_finding())
    assert message("*500*")(_finding(says="HTTP 500"))
    assert not either(rule("key"), message("*500*"))(_finding())


def test_a_mutant_is_killed_by_a_finding_about_its_own_fault() -> None:
    found = trial.try_one(Order(name=MAX, layers=("boundary",), models=("v3/flux-dev-lora",)))
    assert found.found == ("boundary",)
    assert not found.fell


@pytest.mark.parametrize("family", FIRST)
def test_one_mutant_of_each_family_is_killed_for_its_own_fault(family: str) -> None:
    mutant = FIRST[family]
    models = mutant.models or run.TYPICAL[mutant.edition]
    trials = (trial.try_one(Order(name=mutant.name, layers=(layer,), models=models)) for layer in QUICK)
    said: list[str] = []
    for each in trials:
        if each.found:
            return
        said.extend((*each.said, each.fell))
    pytest.fail("\n".join(said) or "nothing was said of it")


def test_the_right_server_is_accused_of_nothing() -> None:
    found = trial.try_one(Order(layers=("boundary", "judges"), models=("v3/flux-schnell-lora",)))
    assert (found.accused, found.fell, found.stopped) == ((), "", "")
    assert found.proven > 100


def test_a_layer_that_cannot_see_a_fault_lets_the_mutant_live(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--jobs", "1", "--narrow", "--only", DEFAULT, "--layer", "boundary"]) == 1
    assert "Survivors: 1" in capsys.readouterr().out


def test_a_layer_that_sees_a_fault_kills_the_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--jobs", "1", "--narrow", "--only", DEFAULT, "--layer", "defaults"]) == 0
    assert "Survivors: 0" in capsys.readouterr().out


def test_a_pattern_of_no_mutant_is_an_error() -> None:
    assert run.main(["--only", "no such mutant"]) == 1


def _trial(**more: Any) -> Trial:
    given = {"name": "x", "family": "f", "accused": (), "found": (), "said": (), "fell": "", "stopped": ""}
    return Trial(**{**given, "proven": 1, "seconds": 0.0, **more})


def test_a_mutant_that_is_accused_of_something_else_has_survived() -> None:
    assert run.survivors([_trial(accused=("boundary",))])
    assert not run.survivors([_trial(accused=("boundary",), found=("boundary",))])


def test_a_suite_that_falls_over_the_right_server_is_a_false_alarm() -> None:
    assert run.accused([_trial(family="no fault", fell="KeyError")])
    assert not run.accused([_trial(family="no fault")])
