"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from vaegan.runtime.collectives import Votes

log = logging.getLogger(__name__)
DIVERGED = (
    "{}: the training has diverged. No checkpoint holds it. Lower the learning rate, or leave more single bad steps "
    "out with trainer.skip_bad_steps=10"
)


class NonFiniteStep(ValueError):
    """A loss or a gradient is not a number, or infinite."""


class NonFiniteGuard(pl.Callback):
    """Ends a training whose loss or gradient is not finite, before a checkpoint of it is written.

    A module names what its next optimizer step follows from in `terms`. On an accelerator, which must not wait, the
    values of many steps are looked at together; in any case before a validation and before a checkpoint.

    Args:
        num_skipped: Bad steps that are left out before the training ends.
    """

    NUM_TOGETHER = 50

    def __init__(self, num_skipped: int) -> None:
        self.allowed, self.num_skipped = num_skipped, 0
        self.steps: list[
            tuple[int, list[str], Tensor]
        ] = []  # batches done, terms, values; not looked at yet

    def state_dict(self) -> dict[str, Any]:
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped = state_dict["num_skipped"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.votes = Votes()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        terms: dict[str, Tensor] = {
            name: value.detach().mean() for name, value in pl_module.terms.items()
        }
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        if (
            getattr(trainer.precision_plugin, "scaler", None) is None
        ):  # else infinite gradients are part of the method
            terms[f"the gradient of {next(iter(terms))}"] = get_total_norm(
                [parameter.grad for parameter in parameters if parameter.grad is not None]
            )
        self.steps.append(
            (trainer.fit_loop.total_batch_idx, list(terms), torch.stack(list(terms.values())))
        )
        if self.allowed:
            self.skip(parameters)
        elif pl_module.device.type == "cpu" or len(self.steps) >= self.NUM_TOGETHER:
            self.check()

    def skip(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Leave the step out on all devices if it is bad on one of them, and not too many were."""
        bad = next(self.bad(), None)
        self.steps.clear()
        if self.votes.any(int(bad is not None))[0]:
            what = bad or "the step is bad on another device"
            if self.num_skipped == self.allowed:
                raise NonFiniteStep(DIVERGED.format(what))
            self.num_skipped += 1
            log.warning(
                "step left out (%d of at most %d): %s", self.num_skipped, self.allowed, what
            )
            for parameter in parameters:
                parameter.grad = None  # Adam leaves those alone, with their moments

    def check(self) -> None:
        """Look at the steps that were not looked at yet.

        Raises:
            NonFiniteStep: One of them is bad; says which, and what of it.
        """
        if what := next(self.bad(), None):
            raise NonFiniteStep(DIVERGED.format(what))
        self.steps.clear()

    def bad(self) -> Iterator[str]:
        """What is not finite in the steps that were not looked at yet."""
        for iteration, names, values in self.steps:
            for name, value in zip(names, values.tolist(), strict=True):
                if not math.isfinite(value):
                    yield f"{name} is {value} at iteration {iteration}"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check()
