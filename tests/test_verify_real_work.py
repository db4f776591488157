"""The contract suite on a target whose tasks take real work: it waits for few, and ends the others."""

import contextlib
import io
import json
import socket
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from bad_targets import Asked, BadTarget, kept, reset, speaking
from PIL import Image
from reports import a_case

from conftest import Client, MakeClient
from contract_tests.archive import pictures
from contract_tests.case import Case, Report
from contract_tests.run import Options, chosen, examine, open_session, verify
from contract_tests.session import Session

SCHNELL, TRAINER, TURBO = "v3/flux-schnell-lora", "v3/flux-dev-lora-trainer", "v3/flux-dev-lora-trainer-turbo"
MANY = f"{SCHNELL} 12 tasks in a row"
LIFE = "from its submit to its end"
EXAMPLE = "https://example.com/images.zip"
Refusal = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    method: str
    path: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(kw_only=True)
class Working:
    """A mock behind which work is said to be real, and all that it was asked. `gone` are paths it refuses."""

    client: Client
    backend: str = "gpu"
    gone: Refusal = lambda _: False
    asked: list[Sent] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""

        async def listen() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        answer: list[dict[str, Any]] = []

        async def keep(message: Any) -> None:
            answer.append(message)

        gone = self.gone(scope["path"])
        await self.client.app(
            {**scope, "path": "/nothing", "raw_path": b"/nothing"} if gone else scope, listen, keep
        )
        self.asked.append(Sent(method=scope["method"], path=scope["path"], body=body))
        said = b"".join(each.get("body", b"") for each in answer[1:])
        if scope["path"] == "/_mock/health" and not gone:
            told = json.loads(said)
            said = json.dumps({**told, "data": {**told["data"], "backend": self.backend}}).encode()
        headers = [each for each in answer[0]["headers"] if each[0] != b"content-length"]
        await send({**answer[0], "headers": headers})
        await send({"type": "http.response.body", "body": said})

    def all(self, end: str) -> list[Sent]:
        return [each for each in self.asked if each.method == "POST" and each.path.endswith(end)]

    def stand(self) -> list[str]:
        """The statuses of all tasks, with their errors."""
        names = [each["id"] for each in self.client.get("/_mock/predictions").json()["data"]["predictions"]]
        return [f"{each['status']} {each['error']}".strip() for each in map(self.client.result, names)]


def run(app: Working, *cases: str | Case, patience: float = 120) -> Report:
    """What becomes of cases, made here or of these names, without really waiting."""

    async def sleep(_: float) -> None: ...

    made = [each for each in cases if isinstance(each, Case)]
    names = tuple(each for each in cases if isinstance(each, str))
    options = Options(app=app, case=names, patience=patience)
    session = open_session(options)
    session.target.manners = replace(session.target.manners, sleep=sleep)
    with contextlib.closing(session.target):
        return examine(session, [*made, *(chosen(session, options) if names else [])], options)


def verdicts(report: Report) -> list[tuple[str, str]]:
    return [(each.verdict, each.message) for each in report.findings]


def test_what_a_case_began_is_ended_after_it(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="manual"))
    assert verdicts(run(app, MANY)) == [("proven", "")]
    assert app.stand() == ["failed ended by wavemock verify: it is not waited for"] * 12
    assert len(app.all("/advance")) == 12


def test_what_was_begun_without_leave_is_ended_too(make_client: MakeClient) -> None:
    def accept(session: Session) -> None:
        assert session.post(session.models[0], {"prompt": "a lighthouse"}, accepted=False).accepted

    app = Working(client=make_client(scenario="manual"))
    assert verdicts(run(app, a_case(check=accept))) == [("proven", "")]
    assert [each.split()[0] for each in app.stand()] == ["failed"]


def test_what_was_begun_is_ended_when_somebody_presses_ctrl_c(make_client: MakeClient) -> None:
    def interrupted(session: Session) -> None:
        session.submit(session.models[0])
        raise KeyboardInterrupt

    app = Working(client=make_client(scenario="manual"))
    assert run(app, a_case(check=interrupted)).stopped == "it was interrupted"
    assert [each.split()[0] for each in app.stand()] == ["failed"]


def test_what_was_seen_to_end_is_left_alone(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="instant"))
    assert verdicts(run(app, f"{SCHNELL} {LIFE}")) == [("proven", "")]
    assert app.all("/advance") == []


def test_a_clock_that_can_be_moved_ends_tasks_better(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="manual"), backend="simulated")
    run(app, MANY)
    assert app.all("/advance") == []


def test_other_people_s_servers_are_asked_once_and_left_alone(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="manual"), gone=lambda path: path.startswith("/_mock/"))
    run(app, MANY, f"{SCHNELL} ids")
    assert [each.path for each in app.asked if each.path.startswith("/_mock/")] == ["/_mock/health"]


def test_a_target_that_does_not_answer_there_is_not_asked_again() -> None:
    def answer(target: BadTarget, wire: socket.socket, asked: Asked) -> bytes:
        return reset(wire) if asked.path.startswith("/_mock/") else kept(target, wire, asked)

    with speaking(answer) as target:
        options = Options(url=target.url, case=(f"{SCHNELL} ids", f"{SCHNELL} the first answer"))
        verify(options)
    assert [each.path for each in target.asked if each.path.startswith("/_mock/")] == ["/_mock/health"]


def test_a_task_that_cannot_be_ended_changes_no_verdict(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="manual"), gone=lambda path: path.endswith("/advance"))
    report = run(app, MANY)
    assert verdicts(report) == [("proven", "")]
    assert not any("/advance" in each.request.path for each in report.findings[0].exchanges)


def test_too_little_patience_proves_nothing(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="manual"))
    said = "it is still created after 3 s, and --patience 3 allows no more"
    assert verdicts(run(app, f"{SCHNELL} its outputs", patience=3)) == [("not proven", said)]


@pytest.mark.parametrize(("model", "name", "steps"), [(TRAINER, "images_data_url", 1), (TURBO, "data", 1000)])
def test_a_trainer_that_is_waited_for_gets_pictures_and_few_steps(
    make_client: MakeClient, model: str, name: str, steps: int
) -> None:
    app = Working(client=make_client(scenario="instant"))
    assert verdicts(run(app, f"{model} {LIFE}", f"{model} its outputs")) == [("proven", "")] * 2
    (upload,) = app.all("/media/upload/binary")
    assert pictures() in upload.body
    for submit in app.all(f"/{model.split('/')[1]}"):
        if submit.json:  # the first asks whether the model is there at all
            given = submit.json
            assert given["steps"] == steps
            assert app.client.get(given[name]).content == pictures()


def test_a_trainer_whose_time_can_be_moved_gets_the_pages_example(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="instant"), backend="simulated")
    run(app, f"{TRAINER} {LIFE}")
    assert [each.json for each in app.all("-trainer") if each.json] == [{"images_data_url": EXAMPLE}]


def test_a_trainer_that_is_not_waited_for_gets_the_pages_example(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="manual"))
    run(app, f"{TRAINER} 12 tasks in a row")
    assert {each.json["images_data_url"] for each in app.all("-trainer") if each.json} == {EXAMPLE}
    assert app.all("/media/upload/binary") == []


def test_a_target_without_uploads_gets_the_pages_example_and_is_asked_once(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="instant"), gone=lambda path: "/media/" in path)
    run(app, f"{TRAINER} {LIFE}", f"{TRAINER} its outputs")
    assert {each.json["images_data_url"] for each in app.all("-trainer") if each.json} == {EXAMPLE}
    assert len(app.all("/media/upload/binary")) == 1


@pytest.mark.parametrize(
    ("case", "given"),
    [
        ("its outputs", {"size": "512*512", "num_inference_steps": 1}),
        ("num_images outputs, unless given", {"size": "512*512", "num_inference_steps": 1}),
        ("size size of outputs, unless given", {"num_inference_steps": 1}),
        ("size size of outputs, given as *", {"size": "512*576", "num_inference_steps": 1}),
        (LIFE, {}),
    ],
)
def test_a_picture_that_is_waited_for_is_as_little_work_as_its_case_allows(
    make_client: MakeClient, case: str, given: dict[str, Any]
) -> None:
    app = Working(client=make_client(scenario="instant"))
    assert verdicts(run(app, f"{SCHNELL} {case}")) == [("proven", "")]
    assert [each.json for each in app.all("-schnell-lora") if each.json] == [
        {"prompt": "a lighthouse", **given}
    ]


def test_a_rank_is_asked_for_with_the_pictures(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="instant"))
    assert verdicts(run(app, f"{TURBO} lora_rank rank of outputs, given as 8")) == [("proven", "")]
    (given,) = [each.json for each in app.all("-turbo") if each.json]
    assert (given["lora_rank"], given["steps"]) == (8, 1000)


def test_an_upload_is_no_task(make_client: MakeClient) -> None:
    app = Working(client=make_client(scenario="instant"))
    assert run(app, f"{TRAINER} {LIFE}").begun == 1


def test_the_archive_holds_four_pictures_that_differ() -> None:
    with zipfile.ZipFile(io.BytesIO(pictures())) as opened:
        contents = [opened.read(name) for name in opened.namelist()]
    sizes = [Image.open(io.BytesIO(each)).size for each in contents]
    assert (sizes, len(set(contents))) == ([(512, 512)] * 4, 4)
    assert pictures() == pictures()
