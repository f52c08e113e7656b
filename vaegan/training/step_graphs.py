"""Replay the forward and backward passes of training steps as CUDA graphs.

The kernels of a small network are faster than Python can launch them. A CUDA graph launches all
kernels of a pass at once, on the same memory each time. Optimizers, logging and checks of the
gradients run between the graphs, as usual.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

log = logging.getLogger(__name__)

NUM_EAGER = 3  # calls of a function before its capture, in which libraries and compilers set up


class OperationRecorder(TorchDispatchMode):
    """Record each operation with the shapes of its tensors and with its other arguments.

    A kernel on a GPU gets a scalar tensor on the CPU by value, as it gets a number.

    Args:
        device: Device of the training.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.has_gpu = device.type != "cpu"
        self.operations: list[tuple[str, ...]] = []

    def describe(self, value: Any) -> str:
        """Return what a replay repeats of an argument."""
        if not isinstance(value, Tensor):
            return repr(value)
        is_passed_by_value = self.has_gpu and value.dim() == 0 and value.device.type == "cpu"
        return repr(value.item()) if is_passed_by_value else str(tuple(value.shape))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.append((str(func), *map(self.describe, tree_leaves((args, kwargs)))))
        return func(*args, **(kwargs or {}))


def check_equal(calls: Sequence[Sequence[tuple[str, ...]]]) -> None:
    """Check that all calls executed the same operations, which a replay repeats.

    Raises:
        RuntimeError: They did not.
    """
    for operations in calls[1:]:
        for first, other in zip_longest(calls[0], operations, fillvalue=("",)):
            if first[0] != other[0]:
                name = first[0] or other[0]
                raise RuntimeError(f"the operations differ from step to step, at {name}")
            if first != other:
                raise RuntimeError(
                    f"the arguments of {first[0]} differ from step to step. Keep numbers that "
                    "change in buffers, and update these in place"
                )


class CapturedCall:
    """A call of a function that computes gradients, captured to be replayed with other inputs.

    Args:
        function: Function of `inputs` that computes the gradients of `parameters`, which are None
            before the call.
        inputs: Tensors, floats or None, with the shapes and types of all later calls.
        parameters: Parameters whose gradients are computed.
        capturing: Context in which the call is captured instead of executed.
        replay: Executes what was captured.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        parameters: Sequence[nn.Parameter],
        capturing: AbstractContextManager[Any],
        replay: Callable[[], None],
    ) -> None:
        self.parameters = parameters
        self.replay = replay
        device = parameters[0].device
        tensors = [scalar_tensor(value, device) for value in inputs]
        self.inputs = [x.clone() if isinstance(x, Tensor) else x for x in tensors]
        with capturing:
            self.outputs = function(*self.inputs)
        self.gradients = [parameter.grad for parameter in parameters]

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """Return the outputs for the inputs, in the same tensors each time."""
        for static, value in zip(self.inputs, inputs, strict=True):
            if isinstance(value, Tensor):
                static.copy_(value, non_blocking=True)
            elif value is not None:
                static.fill_(value)
        self.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.outputs


def scalar_tensor(value: Any, device: torch.device) -> Any:
    """Return a number as a scalar tensor, and other values unchanged."""
    return torch.full((), value, device=device) if isinstance(value, float) else value


class StepGraphs:
    """Captured forward and backward passes of training steps.

    The first calls of a function are executed. A function that waits for the GPU cannot be
    captured. All passes run on one stream, because autograd accumulates a gradient on the stream on
    which its parameter was first used.

    Args:
        device: A CUDA device.
        records_operations: Check before a capture that the operations do not change from step to
            step; not possible with compiled networks.
    """

    def __init__(self, device: torch.device, records_operations: bool) -> None:
        self.device = device
        self.records_operations = records_operations
        self.is_enabled = True
        self.num_calls: Counter[Hashable] = Counter()
        self.operations: dict[Hashable, list[list[tuple[str, ...]]]] = {}
        self.captured: dict[Hashable, CapturedCall] = {}
        self.gradients: list[tuple[nn.Parameter, Tensor | None]] = []
        self.prepare()

    def prepare(self) -> None:
        """Create the stream and the memory pool of the graphs."""
        self.stream = torch.cuda.Stream(self.device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(
        self,
        key: Hashable,
        function: Callable[..., Any],
        parameters: Sequence[nn.Parameter],
        *inputs: Any,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """Return function(*inputs), which sets the gradients of `parameters`.

        A function may use outputs of another one, with their autograd graph, if both are called
        once per step with keys that change together: they are then captured in the same step.

        Args:
            key: Everything on which the operations depend, except the values of the inputs.
            function: Function of the inputs; it returns tensors, which a later call overwrites.
            parameters: Parameters whose gradients `function` computes; old ones are dropped.
            inputs: Tensors, floats or None; floats are passed on as scalar tensors.
            fallback: Used instead of `function` if that cannot be captured, which is logged once;
                it must not use the autograd graph of another function. None: `function`.
        """
        clear_gradients(parameters)
        key = (key, *map(describe, inputs))
        self.num_calls[key] += 1
        if self.is_enabled and self.num_calls[key] > NUM_EAGER and key not in self.captured:
            self.try_capture(key, function, inputs, parameters)
            if not self.is_enabled:
                clear_gradients(parameters)
                function = fallback or function
        if key in self.captured:
            outputs = self.captured[key](inputs)
        else:
            tensors = [scalar_tensor(value, parameters[0].device) for value in inputs]
            with self.passes(), self.recording(key):
                outputs = function(*tensors)
        self.gradients = [(parameter, parameter.grad) for parameter in parameters]
        return outputs

    @contextmanager
    def recording(self, key: Hashable) -> Iterator[None]:
        """Record the operations of the executed calls from the second one on."""
        if not (self.is_enabled and self.records_operations) or self.num_calls[key] == 1:
            yield
            return
        with OperationRecorder(self.device) as recorder:
            yield
        self.operations.setdefault(key, []).append(recorder.operations)

    def try_capture(
        self,
        key: Hashable,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        parameters: Sequence[nn.Parameter],
    ) -> None:
        """Capture a call; if that fails, execute all steps from now on, and log the reason."""
        try:
            check_equal(self.operations.pop(key, []))
            self.captured[key] = self.capture(function, inputs, parameters)
        except RuntimeError as error:
            # The end of a failed capture raises another error than the operation that failed.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            reason = (str(cause) or type(cause).__name__).splitlines()[0]
            log.warning("training steps run without CUDA graphs, which is slower: %s", reason)
            self.is_enabled = False
            self.captured.clear()
            self.gradients.clear()
            self.clean_up()

    def clean_up(self) -> None:
        """Undo what a failed capture leaves behind.

        The state of the GPU's generator is in capture mode; its copy, which draws the same numbers,
        is not. The allocator still uses the pool of the graphs, unless the capture has ended.
        """
        index = self.stream.device.index
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(index, self.pool)

    def restore_gradients(self) -> None:
        """Set the gradients of the parameters to those of the last call."""
        for parameter, gradient in self.gradients:
            parameter.grad = gradient

    def capture(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        parameters: Sequence[nn.Parameter],
    ) -> CapturedCall:
        """Capture a call without executing it."""
        graph = torch.cuda.CUDAGraph()
        return CapturedCall(function, inputs, parameters, self.capturing(graph), graph.replay)

    @contextmanager
    def capturing(self, graph: torch.cuda.CUDAGraph) -> Iterator[None]:
        """Capture the context as a graph. Other threads may use the GPU in the meantime."""
        current = torch.cuda.current_stream(self.stream.device)
        capture = torch.cuda.graph(graph, self.pool, self.stream, "thread_local")
        try:
            with capture, uncached_autocast():
                yield
        finally:
            torch.cuda.set_stream(current)  # a failed capture leaves its own stream

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Execute the context on the stream of the graphs."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream), uncached_autocast():
            yield
        current.wait_stream(self.stream)


@contextmanager
def uncached_autocast() -> Iterator[None]:
    """Keep autocast as it is, but cast weights again at every use.

    A graph with a cached copy of a weight would not see its updates.
    """
    is_cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(is_cached)


def clear_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Set the gradients of the parameters to None."""
    for parameter in parameters:
        parameter.grad = None


def describe(value: Any) -> Any:
    """Return what must not change from call to call of a captured function."""
    return (value.shape, value.dtype) if isinstance(value, Tensor) else type(value)
