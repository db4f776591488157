"""How much memory a device has left, and what becomes of work that there is too little for."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from reference_backend.job import JobFailed

T = TypeVar("T")

_SIGNS = (
    "can't allocate memory",  # a CPU's allocator
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""By which errors are known for which torch has no type."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether it is what torch raises where memory has run out, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def within_memory(make: Callable[[], T], *, otherwise: str) -> T:
    """What `make` makes. Lack of memory becomes JobFailed with that text; what was taken is given back."""
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
    # Outside of `except`: while the error lives, so do the frames it came through, and their tensors.
    give_back()
    raise JobFailed("out_of_memory", otherwise)


def give_back() -> None:
    """Frees what nobody holds any more, on the GPU for other programs too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """What this process can still take of a GPU: what the driver has left, and torch's own cache."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
