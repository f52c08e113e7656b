"""Stop training when a loss or a gradient is not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from vaegan.runtime.collectives import FlagReducer
from vaegan.training.gradients import is_logged

log = logging.getLogger(__name__)


ADVICE = (
    "the training has diverged. Checkpoints are not affected. Lower the learning rate, or skip up "
    "to 10 bad steps with trainer.skip_bad_steps=10"
)


class NonFiniteStep(ValueError):
    """A loss or a gradient is NaN or infinite."""


@dataclass
class StepTerms:
    """Loss terms and gradient norm of one optimizer step."""

    iteration: int
    names: list[str]
    values: Tensor  # (len(names),), in the order of `names`


def describe_non_finite(steps: Sequence[StepTerms]) -> str | None:
    """Describe the first value that is not finite; None if all values are finite.

    All values are copied to the host at once: each copy from a GPU waits for all queued work.
    """
    names = [(name, step.iteration) for step in steps for name in step.names]
    values = torch.cat([step.values for step in steps]).tolist() if steps else []
    for (name, iteration), value in zip(names, values, strict=True):
        if not math.isfinite(value):
            return f"{name} is {value} at iteration {iteration}"
    return None


class NonFiniteGuard(pl.Callback):
    """Stop training when a loss or a gradient is not finite, before a checkpoint is saved.

    The module's attribute `terms` maps names to the loss terms of its next optimizer step. On an
    accelerator, all steps since the last logged one are checked together, when the host waits for
    the values to log anyway. All steps are checked before a validation and before a checkpoint.

    Args:
        max_skipped: Number of non-finite steps to skip before training is stopped.
    """

    def __init__(self, max_skipped: int) -> None:
        self.max_skipped = max_skipped
        self.num_skipped = 0
        self.unchecked_steps: list[StepTerms] = []

    def state_dict(self) -> dict[str, Any]:
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped = state_dict["num_skipped"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.flag_reducer = FlagReducer()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters: list[torch.nn.Parameter] = []
        for group in optimizer.param_groups:
            parameters += group["params"]
        terms = {name: value.detach().mean() for name, value in pl_module.terms.items()}
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            # A gradient scaler causes infinite gradients by design and skips those steps itself.
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            terms[f"the gradient of {next(iter(terms))}"] = get_total_norm(gradients)
        values = torch.stack(list(terms.values()))
        step = StepTerms(trainer.fit_loop.total_batch_idx, list(terms), values)
        if self.max_skipped:
            self.skip_if_bad(step, parameters)
            return
        self.unchecked_steps.append(step)
        if is_logged(trainer) or pl_module.device.type == "cpu":
            self.check()

    def skip_if_bad(self, step: StepTerms, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Skip a step on all devices if it is not finite on any of them.

        Raises:
            NonFiniteStep: `max_skipped` steps were already skipped.
        """
        problem = describe_non_finite([step])
        (is_bad_anywhere,) = self.flag_reducer.all_reduce_max([int(problem is not None)])
        if not is_bad_anywhere:
            return
        problem = problem or "the step is not finite on another device"
        if self.num_skipped == self.max_skipped:
            raise NonFiniteStep(f"{problem}: {ADVICE}")
        self.num_skipped += 1
        log.warning(
            "step skipped (%d of at most %d): %s", self.num_skipped, self.max_skipped, problem
        )
        for parameter in parameters:
            parameter.grad = None  # Adam then changes neither the parameter nor its moments

    def check(self) -> None:
        """Check all steps since the last check.

        Raises:
            NonFiniteStep: A value of one of these steps is not finite.
        """
        if problem := describe_non_finite(self.unchecked_steps):
            raise NonFiniteStep(f"{problem}: {ADVICE}")
        self.unchecked_steps.clear()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check()
