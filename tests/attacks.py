"""What hostile files do to whoever reads them, seen in a process that does nothing else."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CHILD = """
import os, resource, sys
sys.path[:0] = {paths!r}
import {module} as here
from reference_backend.job import JobFailed

harm = []
def watch(event, given):
    if event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        harm.append(event)
    if event.startswith(("socket.", "subprocess.", "os.system", "os.mkdir", "os.link", "os.symlink")):
        harm.append(event)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.addaudithook(watch)
refused = 0
for content in here.{make}():
    try:
        here.{read}(content)
    except JobFailed as failed:
        refused += 1
        assert failed.message.isprintable() and os.getcwd() not in failed.message, failed.message
print(len(harm), refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def attacked(
    make: Callable[[], list[bytes]], read: Callable[[bytes], None], folder: Path
) -> tuple[int, int, int]:
    """What comes of reading files in a process of its own, by two functions of one module of tests.

    How often it wrote, made a folder or opened a socket; how many it refused; by how many KiB it grew.
    """
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    names = {"module": make.__module__, "make": make.__name__, "read": read.__name__}
    done = subprocess.run(
        [sys.executable, "-B", "-c", CHILD.format(paths=paths, **names)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    harm, refused, grown = map(int, done.stdout.split())
    # On a Mac it is counted in bytes.
    return harm, refused, grown // 1024 if sys.platform == "darwin" else grown


def mutation(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four places changed."""
    held = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(max(1, len(held)))
        length = chance.choice([1, 1, 2, 4, 40, 400])
        match chance.randrange(6):
            case 0:
                held[at : at + length] = chance.randbytes(length)
            case 1:
                held[at : at + length] = b"\xff" * length
            case 2:
                held[at : at + length] = bytes(length)
            case 3:
                del held[at : at + length]
            case 4:
                held[at:at] = held[at : at + length]
            case 5:
                # The ends are where archives keep what they believe.
                place = len(held) - 1 - chance.randrange(min(len(held), 300)) if held else 0
                held[place : place + 1] = chance.randbytes(1)
    return bytes(held)
