"""`wavemock`, ended by the end of its standard input as well: `python -m mock_server.testing.launch serve`.

A pytest that is killed cannot stop its server. Its end of the pipe closes all the same.
"""

import os
import signal
import threading


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Runs the command line of `wavemock`."""
    from mock_server.cli import main as wavemock  # noqa: PLC0415 - the thread watches while this is imported

    wavemock(prog_name="wavemock")


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, name="wavemock-parent", daemon=True).start()
    main()
