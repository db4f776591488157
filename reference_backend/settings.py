"""What a worker is told at its start. Imports nothing heavy; pickled on its way to the child."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Everything that a runner may need to know.

    `store` is the URL of the predictions and `data` the folder of uploads and results. `checkpoint` and
    `checkpoint_schnell` name the weights, None: the small models that come with the package. `device`,
    `dtype`, `compile`, `attention` and `safety` are as the command line gives them. `fetch_from` are the
    hosts and networks that inputs may come from, `loras` the folder of the operator's own LoRAs, and `hub`
    says whether LoRAs may come from a model hub. A training takes `processes`, each with a GPU of its own.
    `retention_days` is how long results are kept, on the server's clock.
    """

    store: str
    data: Path
    checkpoint: str | None = None
    checkpoint_schnell: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    attention: str | None = None
    safety: str = "none"
    fetch_from: tuple[str, ...] = ()
    loras: Path | None = None
    hub: bool = False
    processes: int = 1
    retention_days: float = 7
