"""Muon: momentum whose matrix updates are made orthogonal by a Newton-Schulz iteration.

It needs about half the tokens of AdamW on the projection matrices; embeddings and norms stay with AdamW.
Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalize(update: Tensor, steps: int = 5) -> Tensor:
    """Return a matrix with the singular vectors of `update` and singular values near one."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = update.T if update.shape[0] > update.shape[1] else update
    x = (x / (x.norm() + 1e-7)).bfloat16()  # the iteration corrects itself, so few bits are enough
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x.T if update.shape[0] > update.shape[1] else x
    return orthogonal.to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; the step is scaled so that tall and wide matrices move alike."""

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.0
    ) -> None:
        """Prepare one momentum buffer per matrix; `decay` is decoupled weight decay."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalize(parameter.grad.lerp(buffer, group["momentum"]))
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"] * scale)
