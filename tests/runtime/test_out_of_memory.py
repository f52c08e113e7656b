import pytest
import torch

from vaegan.runtime.out_of_memory import explain_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_lack_of_memory_is_explained(error):
    with pytest.raises(ValueError, match=r"^out of memory: \w.*\nTry batch_size=4$"):
        with explain_out_of_memory("batch_size=4"):
            raise error


def test_other_errors_are_not_changed():
    with pytest.raises(RuntimeError, match="^CUDNN_STATUS_NOT_SUPPORTED$"):
        with explain_out_of_memory("batch_size=4"):
            raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED")
