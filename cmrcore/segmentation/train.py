"""Training of the base and the guided network on hearts of the digital trial that are drawn on the fly."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.phantom.anatomy import Grid
from cmrcore.phantom.training import training_batch
from cmrcore.segmentation.frame import FIRST_LOOK_MM, SECOND_LOOK_MM, SIZE, normalize
from cmrcore.segmentation.guided import GuideTarget, guided_loss, overlap_loss
from cmrcore.segmentation.unet import UNet

_WARM_UP_SHARE = 0.03
_WEIGHT_DECAY = 1e-2
_GRADIENT_NORM = 1.0
_AVERAGE_DECAY = 0.998
_ROUGH_SHARE, _ROUGH = 0.7, 0.12
"""Share of guides that are redrawn less well than the truth, and how strongly."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a training's result depends on, besides code and starting weights."""

    n_steps: int
    """Steps of the optimizer."""
    seed: int = 0
    """Of all draws; the samples of a step depend on it and the step alone."""
    n_slices: int = 6
    """Slices of a step."""
    n_echoes: int = 3
    """Echoes of each slice; the first one's mask is the guide of all."""
    learning_rate: float = 2e-3
    """Its highest value; it rises for a short while and falls as a cosine."""
    first_look_share: float = 0.4
    """Share of steps that show all of the slice, as the first look does; the others show the heart."""
    physics_share: float = 0.35
    """Share of steps with the contrast of a simulated sequence; the others have random contrast."""
    post_share: float = 0.5
    """Share of simulated slices after contrast."""
    hard_share: float = 0.4
    """Share of steps at difficulty ``hard``; the others are ``typical``."""
    alpha: float | None = None
    """Weight of the guide; None draws one for every slice, which makes alpha a dial at run time."""
    guide_target: GuideTarget = "scaled"
    """How the guide enters the loss."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What one step learns from."""

    images: Float[Tensor, "n row col"]
    """Echoes as `cmrcore.segmentation.frame.look` shows them."""
    masks: Float[Tensor, "n label row col"]
    """Their true masks, 0 or 1."""
    guides: Float[Tensor, "n row col"]
    """Myocardium on another echo of the slice, 0 or 1."""
    alpha: Float[Tensor, " n"]
    """Weight of the guide."""
    drawn: Bool[Tensor, "n label"]
    """Which labels somebody drew on the slice of each image; the others teach nothing."""


def draw_samples(recipe: Recipe, step: int) -> Samples:
    """Draw what a step learns from; the same step always gives the same samples."""
    rng = np.random.default_rng([recipe.seed, step])
    pixel_mm = FIRST_LOOK_MM if rng.random() < recipe.first_look_share else SECOND_LOOK_MM
    contrast: Literal["physics", "random"] = "physics" if rng.random() < recipe.physics_share else "random"
    drawn = training_batch(
        rng,
        recipe.n_slices,
        Grid(SIZE, SIZE, pixel_mm),
        contrast=contrast,
        difficulty="hard" if rng.random() < recipe.hard_share else "typical",
        n_echoes=recipe.n_echoes,
        post_share=recipe.post_share,
    )
    masks = drawn.masks.float()
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    guides = _roughen(masks[:, 0, 0], generator)
    alpha = (
        rng.uniform(size=recipe.n_slices) if recipe.alpha is None else np.full(recipe.n_slices, recipe.alpha)
    )
    return Samples(
        images=normalize(drawn.images.flatten(0, 1)),
        masks=masks.flatten(0, 1),
        guides=guides.repeat_interleave(recipe.n_echoes, dim=0),
        alpha=torch.from_numpy(alpha).float().repeat_interleave(recipe.n_echoes),
        drawn=torch.ones(masks.flatten(0, 1).shape[:2], dtype=torch.bool),
    )


class Trainer:
    """A network, its optimizer and the running average of its weights, which is what a training yields."""

    def __init__(self, network: UNet, recipe: Recipe, device: torch.device) -> None:
        if recipe.n_steps < 1:
            raise InvalidInputError(f"{recipe.n_steps} training steps: expected at least 1")
        self.recipe = recipe
        self.device = device
        self.step = 0
        self.network = network.to(device).train()
        self.averaged = copy.deepcopy(self.network).eval()
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=_WEIGHT_DECAY
        )

    def learn(self, samples: Samples) -> float:
        """Take one step and return its loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * learning_rate_share(self.step, self.recipe.n_steps)
        images, masks, guides, alpha = (
            part.to(self.device) for part in (samples.images, samples.masks, samples.guides, samples.alpha)
        )
        scaled = alpha[:, None, None] * guides if self.network.guided else None
        # bfloat16 keeps the range of float32, so no loss is scaled; loss and weights stay float32.
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.network(images, scaled)
        losses = torch.stack(self._losses(logits.float(), masks, guides, alpha))
        loss = losses[samples.drawn.T.to(self.device)].mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self._average()
        self.step += 1
        return loss.item()

    def _losses(self, logits: Tensor, masks: Tensor, guides: Tensor, alpha: Tensor) -> list[Tensor]:
        """Loss of each label on each image; the guide's term acts on the myocardium."""
        losses = [overlap_loss(logits[:, index], masks[:, index]) for index in range(logits.shape[1])]
        if self.network.guided:
            target = self.recipe.guide_target
            losses[0] = guided_loss(logits[:, 0], masks[:, 0], guides, alpha, target=target)
        return losses

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the latest weights."""
        pairs = zip(self.averaged.parameters(), self.network.parameters(), strict=True)
        for average, weight in pairs:
            average.lerp_(weight, 1 - _AVERAGE_DECAY)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if there had been no interruption."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = int(state["step"])
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])


def learning_rate_share(step: int, n_steps: int) -> float:
    """Share of the highest learning rate at a step: a linear rise, then a cosine down to a hundredth."""
    n_rise = max(1, round(_WARM_UP_SHARE * n_steps))
    if step < n_rise:
        return (step + 1) / n_rise
    fallen = (step - n_rise) / max(1, n_steps - n_rise)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(fallen, 1.0))) / 2


def _roughen(guides: Float[Tensor, "n row col"], generator: torch.Generator) -> Float[Tensor, "n row col"]:
    """Move the border of some guides in and out by a pixel or so, as a model or a reader would miss it."""
    n, rows, cols = guides.shape
    blurred = torch.nn.functional.avg_pool2d(guides[:, None], 5, stride=1, padding=2)
    knots = torch.randn(n, 1, rows // 10, cols // 10, generator=generator)
    wobble = torch.nn.functional.interpolate(knots, size=(rows, cols), mode="bilinear")
    rough = (blurred + _ROUGH * wobble)[:, 0] > 0.5
    # A wall thinner than the blur would vanish; such a guide stays as it is.
    kept = rough.sum((-2, -1)) > 0.6 * guides.sum((-2, -1))
    chosen = (torch.rand(n, generator=generator) < _ROUGH_SHARE) & kept
    return torch.where(chosen[:, None, None], rough.float(), guides)
