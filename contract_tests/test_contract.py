"""Each case of the suite as a test."""

import pytest

from contract_tests.case import MISHAP, Case, Stopped
from contract_tests.run import find
from contract_tests.session import Session


def test_the_target_keeps_its_contract(case: Case, target_session: Session) -> None:
    try:
        finding = find(target_session, case)
    except Stopped as error:
        pytest.exit(str(error), returncode=2)
    if finding.message.startswith(MISHAP):
        pytest.fail(finding.message, pytrace=False)
    if finding.verdict == "not proven":
        pytest.skip(finding.message)
    if finding.verdict == "refuted":
        pytest.fail(finding.message, pytrace=False)
