"""Lack of memory: how it is known, and what becomes of the work."""

import pytest
import torch

from reference_backend.job import JobFailed
from reference_backend.memory import is_lack_of_memory, within_memory


def test_a_cpu_that_cannot_allocate_lacks_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_lack_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_what_a_gpu_and_its_libraries_say_is_known(error: Exception) -> None:
    assert is_lack_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("out of memory")],
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_lack_of_memory(error)


def test_work_that_finds_no_memory_fails_with_its_own_text() -> None:
    with pytest.raises(JobFailed) as caught:
        within_memory(lambda: torch.empty(2**60), otherwise="Ask for less.")
    assert str(caught.value) == "out_of_memory: Ask for less."


def test_work_that_fails_otherwise_fails_with_that() -> None:
    with pytest.raises(ZeroDivisionError):
        within_memory(lambda: 1 / 0, otherwise="")
