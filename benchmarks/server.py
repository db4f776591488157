"""How fast the mock is, beside bare Starlette and Prism in the same run.

Each server has one process on one core, and `wrk` with 16 connections has another. All run at once and are
asked in turn, several rounds of it; what counts is the ratio within a round.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import httpx

SUBMIT = "/api/v3/wavespeed-ai/flux-dev-lora"
BODY = {
    "prompt": "A lighthouse in a storm, knitted from yarn",
    "image": "",
    "strength": 0.8,
    "loras": [{"path": "linoyts/yarn_art_Flux_LoRA", "scale": 1}],
    "size": "1024*1024",
    "num_inference_steps": 28,
    "guidance_scale": 3.5,
    "num_images": 1,
    "seed": -1,
    "enable_base64_output": False,
    "enable_safety_checker": True,
}
HEADERS = {"Authorization": "Bearer benchmark", "Content-Type": "application/json"}
KEPT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server under test: how it is started on a port."""

    name: str
    command: Callable[[int], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One measurement by wrk: requests per second, and latencies in milliseconds."""

    rate: float
    median: float
    p99: float


def pinned(core: int, command: list[str]) -> list[str]:
    """The command on one core, where the system can do that."""
    return ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command


@contextmanager
def running(contender: Contender, port: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The server's process, and the seconds from its start to its first answer."""
    began = time.perf_counter()
    process = subprocess.Popen(
        pinned(0, contender.command(port)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}{SUBMIT}", json=BODY, headers=HEADERS, timeout=5)
                break
            except httpx.HTTPError:
                if process.poll() is not None or time.perf_counter() - began > 60:
                    raise click.ClickException(f"{contender.name} did not start") from None
                time.sleep(0.01)
        if answer.status_code != 200:
            raise click.ClickException(f"{contender.name} answers {answer.status_code}: {answer.text[:300]}")
        yield process, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)


def load(port: int, path: str, seconds: int, *, body: str | None) -> Figures:
    """What wrk measures with 16 connections."""
    lua = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in HEADERS.items())
    if body is not None:
        lua += f"wrk.method = 'POST'\nwrk.body = [==[{body}]==]\n"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(lua)
        script.flush()
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", "-s", script.name]
        told = subprocess.run(
            pinned(1, [*command, f"http://127.0.0.1:{port}{path}"]),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    if "Non-2xx" in told:
        raise click.ClickException(f"port {port} {path}: not all answers were successes:\n{told}")
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", told)
    if rate is None:
        raise click.ClickException(f"wrk said something unexpected:\n{told}")
    return Figures(rate=float(rate[1]), median=percentile(told, 50), p99=percentile(told, 99))


def percentile(told: str, which: int) -> float:
    """A latency out of wrk's table, in milliseconds."""
    found = re.search(rf"{which}%\s+([0-9.]+)(us|ms|s)", told)
    if found is None:
        raise click.ClickException(f"wrk said something unexpected:\n{told}")
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def contenders(prism: str | None, document: Path) -> list[Contender]:
    """Bare Starlette, the mock, and Prism where there is one."""
    here = Path(__file__).parent
    uvicorn = ["-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--app-dir", str(here)]
    quiet = [sys.executable, "-W", "ignore", "-m", "mock_server", "serve", "--port"]
    listed = [
        Contender(
            name="Starlette", command=lambda p: [sys.executable, *uvicorn, "--port", str(p), "bare:app"]
        ),
        Contender(name="wavemock", command=lambda p: [*quiet, str(p)]),
    ]
    if prism:
        listed.append(Contender(name="Prism", command=lambda p: [prism, "mock", str(document), "-p", str(p)]))
    return listed


def resident(process: subprocess.Popen[bytes]) -> int:
    """The resident memory of a process in bytes."""
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True
    )
    return int(told.stdout) * 1024


def compare(listed: list[Contender], rounds: int, seconds: int) -> None:
    """The table of ratios. All servers run at once, and one at a time has work to do."""
    starts: dict[str, list[float]] = {each.name: [] for each in listed}
    submits: dict[str, list[Figures]] = {each.name: [] for each in listed}
    polls: dict[str, list[Figures]] = {each.name: [] for each in listed}
    for number in range(3):
        for at, each in enumerate(listed):
            with running(each, 18100 + 10 * number + at) as (_, start):
                starts[each.name].append(start)
    with ExitStack() as stack:
        ports = {each.name: 18200 + at for at, each in enumerate(listed)}
        for each in listed:
            stack.enter_context(running(each, ports[each.name]))
        paths = {each.name: SUBMIT for each in listed}
        for name, port in ports.items():
            data = httpx.post(f"http://127.0.0.1:{port}{SUBMIT}", json=BODY, headers=HEADERS).json()["data"]
            paths[name] = f"/api/v3/predictions/{data['id']}/result"
            load(port, paths[name], 1, body=None)
        for number in range(rounds):
            click.echo(f"round {number + 1} of {rounds}", err=True)
            for name, port in ports.items():
                polls[name].append(load(port, paths[name], seconds, body=None))
            for name, port in ports.items():
                submits[name].append(load(port, SUBMIT, seconds, body=json.dumps(BODY)))
    tell(starts, submits, polls)


def tell(
    starts: dict[str, list[float]], submits: dict[str, list[Figures]], polls: dict[str, list[Figures]]
) -> None:
    """Prints the medians, and the medians of the ratios within each round."""
    click.echo("\n| | first answer | submit /s | p50 | p99 | poll /s | p50 | p99 |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name, seconds in starts.items():
        cells = [f"{statistics.median(seconds):.2f} s"]
        for measured in (submits[name], polls[name]):
            cells += [
                f"{statistics.median(f.rate for f in measured):.0f}",
                f"{statistics.median(f.median for f in measured):.1f} ms",
                f"{statistics.median(f.p99 for f in measured):.1f} ms",
            ]
        click.echo(f"| {name} | {' | '.join(cells)} |")
    for other in starts.keys() - {"wavemock"}:
        ratios = [
            statistics.median(m.rate / o.rate for m, o in zip(table["wavemock"], table[other], strict=True))
            for table in (submits, polls)
        ]
        click.echo(f"\nwavemock / {other}: submit {ratios[0]:.2f}x, poll {ratios[1]:.2f}x")


def remember(mock: Contender, seconds: int) -> None:
    """Memory per kept prediction, and latency with few and with many of them."""
    with running(mock, 18099) as (process, _):
        url = "http://127.0.0.1:18099"
        data = httpx.post(url + SUBMIT, json=BODY, headers=HEADERS).json()["data"]
        poll = f"/api/v3/predictions/{data['id']}/result"
        load(18099, poll, 2, body=None)
        few = [load(18099, poll, 1, body=None) for _ in range(seconds)]
        load(18099, SUBMIT, 1, body=json.dumps(BODY))
        before, kept = resident(process), count(url)
        while (now := count(url)) < KEPT * 9 // 10:
            load(18099, SUBMIT, 2, body=json.dumps(BODY))
        each = (resident(process) - before) / (now - kept)
        poll = f"/api/v3/predictions/{newest(url)}/result"
        many = [load(18099, poll, 1, body=None) for _ in range(seconds)]
        click.echo(f"\nmemory per kept prediction: {each:.0f} bytes, measured over {now - kept} of them")
        for number, figures in ((kept, few), (now, many)):
            best = max(figures, key=lambda each: each.rate)
            click.echo(
                f"poll with {number} kept: {best.rate:.0f}/s, p99 {best.p99:.1f} ms (best of {seconds})"
            )


def count(url: str) -> int:
    return int(httpx.get(f"{url}/_mock/health").json()["data"]["predictions"])


def newest(url: str) -> str:
    return str(httpx.get(f"{url}/_mock/predictions?limit=1").json()["data"]["predictions"][0]["id"])


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=5, show_default=True, type=click.IntRange(1), help="Of each measurement.")
@click.option(
    "--prism", default=shutil.which("prism"), metavar="PATH", help="Prism's command, if there is one."
)
def main(rounds: int, seconds: int, prism: str | None) -> None:
    """Compare the mock with bare Starlette and, where it is installed, with Prism."""
    if shutil.which("wrk") is None:
        raise click.ClickException("this needs wrk, a load generator (on Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "openapi.yaml")
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "mock_server", "openapi"], capture_output=True, check=True
        )
        document.write_bytes(told.stdout)
        listed = contenders(prism, document)
        click.echo(
            f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, 16 connections, {rounds} rounds",
            err=True,
        )
        compare(listed, rounds, seconds)
        remember(listed[1], seconds)


if __name__ == "__main__":
    main()
