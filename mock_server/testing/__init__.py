"""The pytest plugin, and what its fixtures give.

The fixtures are described by `pytest --fixtures`. The names here are for annotations:
`def test_it(wavemock: Wavemock) -> None`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mock_server.testing.control import WavemockError
    from mock_server.testing.inbox import WebhookInbox
    from mock_server.testing.records import (
        ArmedFault,
        ClockEvent,
        ReceivedRequest,
        ReceivedWebhook,
        SimulatedTask,
    )
    from mock_server.testing.session import Wavemock
    from mock_server.testing.starting import WavemockServer
    from mock_server.testing.virtual import VirtualTime

__all__ = [
    "ArmedFault",
    "ClockEvent",
    "ReceivedRequest",
    "ReceivedWebhook",
    "SimulatedTask",
    "VirtualTime",
    "Wavemock",
    "WavemockError",
    "WavemockServer",
    "WebhookInbox",
]

_HOMES = {
    "VirtualTime": "virtual",
    "Wavemock": "session",
    "WavemockError": "control",
    "WavemockServer": "starting",
    "WebhookInbox": "inbox",
}


def __getattr__(name: str) -> Any:
    # Every pytest run on a machine that has this package imports it, so it imports nothing before its use.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'records')}"), name)
