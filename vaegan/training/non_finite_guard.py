"""Stop a training whose loss or gradient is not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from vaegan.runtime.collectives import FlagReducer

log = logging.getLogger(__name__)


ADVICE = (
    "the training has diverged. No checkpoint holds it. Lower the learning rate, or skip more "
    "single bad steps with trainer.skip_bad_steps=10"
)


class NonFiniteStep(ValueError):
    """A loss or a gradient is not a number, or infinite."""


@dataclass
class StepTerms:
    """Values that an optimizer step depends on."""

    iteration: int
    names: list[str]
    values: Tensor  # (len(names),)

    def describe_non_finite(self) -> str | None:
        """Describe the first value that is not finite; None if all are."""
        for name, value in zip(self.names, self.values.tolist(), strict=True):
            if not math.isfinite(value):
                return f"{name} is {value} at iteration {self.iteration}"
        return None


class NonFiniteGuard(pl.Callback):
    """Stop a training whose loss or gradient is not finite, before it is saved in a checkpoint.

    The module's `terms` are the values, by name, that its next optimizer step depends on. On an
    accelerator, which must not wait, many steps are checked together; in any case before a
    validation and before a checkpoint.

    Args:
        max_skipped: Number of bad steps to skip before the training is stopped.
    """

    STEPS_PER_CHECK = 50

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
            # A gradient scaler produces infinite gradients on purpose, and skips them itself.
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            terms[f"the gradient of {next(iter(terms))}"] = get_total_norm(gradients)
        values = torch.stack(list(terms.values()))
        step = StepTerms(trainer.fit_loop.total_batch_idx, list(terms), values)
        if self.max_skipped:
            self.skip_if_bad(step, parameters)
            return
        self.unchecked_steps.append(step)
        is_full = len(self.unchecked_steps) >= self.STEPS_PER_CHECK
        if is_full or pl_module.device.type == "cpu":
            self.check()

    def skip_if_bad(self, step: StepTerms, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Skip a step on all devices if it is bad on one of them.

        Raises:
            NonFiniteStep: Too many steps were skipped already.
        """
        problem = step.describe_non_finite()
        (is_bad_anywhere,) = self.flag_reducer.all_reduce_max([int(problem is not None)])
        if not is_bad_anywhere:
            return
        problem = problem or "the step is bad on another device"
        if self.num_skipped == self.max_skipped:
            raise NonFiniteStep(f"{problem}: {ADVICE}")
        self.num_skipped += 1
        log.warning(
            "step skipped (%d of at most %d): %s", self.num_skipped, self.max_skipped, problem
        )
        for parameter in parameters:
            parameter.grad = None  # Adam then leaves it and its moments unchanged

    def check(self) -> None:
        """Check the steps that have not been checked yet.

        Raises:
            NonFiniteStep: A value of one of them is not finite.
        """
        for step in self.unchecked_steps:
            if problem := step.describe_non_finite():
                raise NonFiniteStep(f"{problem}: {ADVICE}")
        self.unchecked_steps.clear()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check()
