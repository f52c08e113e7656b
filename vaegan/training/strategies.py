"""Lightning strategies for training on several devices."""

from __future__ import annotations

from collections.abc import Iterable

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vaegan.training.trainer_config import DeviceConfig


class UnwrappedDDP(DDPStrategy):
    """DDP for manual optimization: `average_gradients` before each step instead of a wrapper.

    In a step of one network of a GAN the other one has no gradients. The wrapper
    `DistributedDataParallel` then needs `find_unused_parameters` and reduces the parameters of both
    networks in each backward pass.
    """

    def configure_ddp(self) -> None:
        """Copy the weights of rank 0 to all ranks; the module is not wrapped."""
        assert self.model is not None
        for tensor in self.model.state_dict().values():
            dist.broadcast(tensor, src=0)


def choose_strategy(config: DeviceConfig, module: pl.LightningModule) -> str | DDPStrategy:
    """Return the strategy that trains a module on the devices of a config.

    On one device, `ddp` is `auto`: its wrapper would refuse the steps of a GAN, in which one of the
    networks has no gradients.
    """
    if config.strategy not in ("auto", "ddp"):
        return config.strategy
    if config.devices * config.num_nodes == 1:
        return "auto"
    if not module.automatic_optimization:
        return UnwrappedDDP()
    # All ranks compute the same buffers; by default, DDP broadcasts them in each step.
    buffers = [name for name, _ in module.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, buffers)
    return "ddp"


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], trainer: pl.Trainer) -> None:
    """Average the gradients over all ranks, in one all-reduce.

    Every rank must have gradients of the same parameters.
    """
    if not isinstance(trainer.strategy, UnwrappedDDP):
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / trainer.world_size
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    averages = [part.view(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(gradients, averages)
