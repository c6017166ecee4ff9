"""One training from start to end: steps, scores, checkpoints, and what is left when it has ended."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation import UNet, network_from
from cmrcore.segmentation.own_images import LabelledSlice, draw_slices, mean_dice, samples_of
from cmrcore.segmentation.train import Recipe, Samples, Trainer, draw_samples
from cmrcore.segmentation.unet import guided_from
from flows.checkpoint import Progress, read_checkpoint, write_checkpoint
from flows.errors import FlowError
from flows.learning_curve import draw_curve
from storage.digest import canonical_digest, file_digest
from storage.durable import write_durably
from storage.labelled import LabelledFile, list_labelled, read_labelled, split_patients

Kind = Literal["base", "guided"]
Drawn = Literal["myocardium", "left ventricle"]
"""What somebody must have drawn on a slice: its myocardium, or its blood pool will do."""

HELD_OUT_FRACTION = 0.2
"""Share of the patients of a folder that are held out for the score."""
DEVELOPMENT_SEED = 9_000_000
"""Of the digital trial's slices for the score; training seeds its draws with [seed, step] below it."""
N_DEVELOPMENT = 24
"""Slices of the digital trial for the score."""


class TrainingError(FlowError, ValueError):
    """A training that cannot begin or go on."""


@dataclass(frozen=True, slots=True)
class Training:
    """What is to be trained, and on what."""

    kind: Kind
    """Which network."""
    output: Path
    """Folder of checkpoint, curve, weights and card; a base and a guided network may share it."""
    recipe: Recipe
    """What the result depends on, besides data and starting weights."""
    start: Path | None = None
    """Weights to start from, for a guided network those of a base network; None: random ones."""
    data: Path | None = None
    """Folder of labelled images to learn from; None: the digital trial."""
    development: Path | None = None
    """Folder of labelled images for the score; None: held-out patients of ``data``, or the digital trial."""
    evaluate_every: int = 250
    """Steps between two evaluations, at each of which a checkpoint is written."""
    patience: int = 12
    """Evaluations without a better score after which training stops."""
    workers: int = 0
    """Processes that draw samples ahead; changes no result."""

    @property
    def weights(self) -> Path:
        """File of the weights; the card lies beside it."""
        return self.output / f"{self.kind}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """File of all that is needed to go on."""
        return self.output / f"{self.kind}-checkpoint.safetensors"

    @property
    def curve(self) -> Path:
        """File of the learning curve."""
        return self.output / f"{self.kind}-curve.png"

    def as_json(self) -> dict[str, Any]:
        """All that the weights depend on."""
        return {
            "kind": self.kind,
            **asdict(self.recipe),
            "start": None if self.start is None else f"sha256:{file_digest(self.start)}",
            "data": _folder_digest(self.data),
            "development": _folder_digest(self.development),
            "evaluate_every": self.evaluate_every,
            "patience": self.patience,
        }


def check_training(training: Training) -> tuple[UNet, tuple[dict[str, Any], Progress] | None]:
    """Give the network that a training begins with, and where an interrupted one was; write nothing.

    Raises
    ------
    TrainingError
        If the folder holds another training, starting weights of the wrong kind or those that the training
        would write over are given, or nothing is drawn on labelled images.
    RefusedError
        If there are no labelled images where they should be, or too few patients.
    """
    if training.start is not None and training.start.resolve() == training.weights.resolve():
        message = "the weights to start from are the file that the training writes; name another folder"
        raise TrainingError(message)
    learned, scored = _files(training)
    needs: tuple[tuple[tuple[LabelledFile, ...], Drawn], ...] = (
        (learned, "myocardium"),
        (scored, _needed(training)),
    )
    for files, needed in needs:
        if files and next(_slices(files, needed), None) is None:
            message = f"no {needed} is drawn on any slice of {len(files)} labelled images"
            raise TrainingError(message)
    network = _network(training)
    if not training.checkpoint.is_file():
        return network, None
    state, progress = read_checkpoint(training.checkpoint)
    recipe = training.as_json()
    changed = sorted(key for key in recipe if progress.recipe.get(key) != recipe[key])
    if changed:
        others = ", ".join(changed)
        message = f"the folder holds a training with another {others}; name another folder, or remove it"
        raise TrainingError(message)
    return network, (state, progress)


def train_network(
    training: Training, device: torch.device, on_progress: Callable[[int, Progress], None]
) -> Path:
    """Train, or go on where a training of the same recipe was interrupted; give the file of weights.

    The weights are those with the best score on the development set. On a CPU they are the same whether the
    training was interrupted or not.

    Parameters
    ----------
    training
        What to train.
    device
        Where; with bfloat16 on either.
    on_progress
        Told the step and what is known so far, at each evaluation.

    Raises
    ------
    TrainingError
        If the training cannot begin, see `check_training`, or a loss or score is no finite number.
    RefusedError
        If labelled images cannot be used.
    """
    network, before = check_training(training)
    training.output.mkdir(parents=True, exist_ok=True)
    weights = training.weights
    source, development = _data(training)
    trainer = Trainer(network, training.recipe, device)
    progress = Progress(training.as_json())
    if before is not None:
        state, progress = before
        trainer.load_state_dict(state)
    losses: list[float] = []
    for samples in _steps(source, trainer.step, training):
        if progress.n_since_best >= training.patience:
            break
        losses.append(_finite("loss", trainer.learn(samples), trainer.step))
        if trainer.step % training.evaluate_every and trainer.step != training.recipe.n_steps:
            continue
        score = _finite("score", mean_dice(trainer.averaged.eval(), development), trainer.step)
        if score > progress.best_score:
            tensors = {name: one.cpu().contiguous() for name, one in trainer.averaged.state_dict().items()}
            write_durably(weights, save(tensors))
        progress = replace(progress, curve=(*progress.curve, (trainer.step, float(np.mean(losses)), score)))
        losses = []
        write_checkpoint(training.checkpoint, trainer.state_dict(), progress)
        draw_curve(training.curve, training.kind, progress.curve)
        on_progress(trainer.step, progress)
    write_card(training, weights, progress)
    return weights


def write_card(training: Training, weights: Path, progress: Progress) -> None:
    """Say beside the weights what they are, how they came about and what they are not for."""
    learned = "labelled images of one's own" if training.data else "the digital trial, drawn on the fly"
    if training.development or training.data:
        scored = "labelled images of patients that were not learned from"
    else:
        scored = f"{N_DEVELOPMENT} slices of the digital trial that were not learned from"
    step, _, score = max(progress.curve, key=lambda row: row[2])
    settings = "\n".join(f"| {key} | {value} |" for key, value in progress.recipe.items())
    made = f"cmrtrials {version('cmrtrials')}, torch {torch.__version__}, {datetime.now(tz=UTC):%Y-%m-%d}"
    text = f"""# {weights.name}

| | |
| --- | --- |
| digest | `sha256:{file_digest(weights)}` |
| learned from | {learned} |
| score | mean Dice {score:.3f} at step {step}, on {scored} |
| trained with | {made} |
{settings}

The score chose the weights, so it is no estimate of what they do on images of other patients.
{"" if training.data else "Learned from simulated images alone. "}Not for clinical use.
"""
    write_durably(weights.with_suffix(".md"), text.encode())


def _finite(name: str, value: float, step: int) -> float:
    """Stop a training that has gone astray: no score would be better than another, and no weights be kept."""
    if not math.isfinite(value):
        message = (
            f"the {name} at step {step} is {value}, expected a finite number; look at the images to learn "
            "from and at the weights to start from"
        )
        raise TrainingError(message)
    return value


class _Steps(torch.utils.data.Dataset[Samples]):
    """Samples of each step, for workers that draw ahead."""

    def __init__(self, source: Callable[[int], Samples], n_steps: int) -> None:
        self._source = source
        self._n_steps = n_steps

    def __len__(self) -> int:
        return self._n_steps

    def __getitem__(self, step: int) -> Samples:
        return self._source(step)


def _steps(source: Callable[[int], Samples], done: int, training: Training) -> Iterator[Samples]:
    """Give the samples of the steps that are left, drawn ahead by workers."""
    n_steps = training.recipe.n_steps
    left = torch.utils.data.Subset(_Steps(source, n_steps), range(done, n_steps))
    # A fork would take the flow's threads along, half-dead, and fail when it ends.
    context = "spawn" if training.workers else None
    return iter(
        torch.utils.data.DataLoader(
            left, batch_size=None, num_workers=training.workers, multiprocessing_context=context
        )
    )


def _network(training: Training) -> UNet:
    """Build the network that training begins with."""
    torch.manual_seed(training.recipe.seed)
    network = UNet(guided=False)
    if training.start is not None:
        try:
            network = network_from(load_file(training.start))
        except (SafetensorError, InvalidInputError) as error:
            message = f"the weights to start from cannot be used: {error}"
            raise TrainingError(message) from None
    if training.kind == "base" and network.guided:
        message = "a base network cannot start from the weights of a guided one"
        raise TrainingError(message)
    return guided_from(network) if training.kind == "guided" and not network.guided else network


def _data(training: Training) -> tuple[Callable[[int], Samples], list[LabelledSlice]]:
    """Choose what a step learns from, and what the score is taken on."""
    recipe = training.recipe
    learned, scored = _files(training)
    development = (
        list(_slices(scored, _needed(training))) if scored else draw_slices(N_DEVELOPMENT, DEVELOPMENT_SEED)
    )
    if not learned:
        return _Drawn(recipe), development
    return _Own(recipe, list(_slices(learned, "myocardium"))), development


def _files(training: Training) -> tuple[tuple[LabelledFile, ...], tuple[LabelledFile, ...]]:
    """Labelled images to learn from, and for the score; none where the digital trial takes their place."""
    learned: tuple[LabelledFile, ...] = ()
    scored: tuple[LabelledFile, ...] = ()
    if training.data is not None:
        listed = list_labelled(training.data)
        learned, scored = split_patients(listed, HELD_OUT_FRACTION, training.recipe.seed)
    if training.development is not None:
        scored = list_labelled(training.development)
    return learned, scored


def _needed(training: Training) -> Drawn:
    """Say what must be drawn on a slice for the score: the guided network's guide is a myocardium."""
    return "myocardium" if training.kind == "guided" else "left ventricle"


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Samples of the digital trial."""

    recipe: Recipe

    def __call__(self, step: int) -> Samples:
        return draw_samples(self.recipe, step)


@dataclass(frozen=True, slots=True)
class _Own:
    """Samples of labelled images."""

    recipe: Recipe
    slices: list[LabelledSlice]

    def __call__(self, step: int) -> Samples:
        rng = np.random.default_rng([self.recipe.seed, step])
        chosen = rng.integers(len(self.slices), size=self.recipe.n_slices).tolist()
        return samples_of([self.slices[index] for index in chosen], self.recipe, rng)


def _slices(files: tuple[LabelledFile, ...], needed: Drawn) -> Iterator[LabelledSlice]:
    """Read the slices of labelled files on which the needed is drawn, file by file."""
    for file in files:
        for one in read_labelled(file):
            if needed == "left ventricle" or one.masks[:, 0].any():
                yield LabelledSlice(torch.from_numpy(one.images), torch.from_numpy(one.masks), one.spacing_mm)


def _folder_digest(folder: Path | None) -> str | None:
    """Digest of the files of a folder of labelled images, and of whose they are."""
    if folder is None:
        return None
    files = list_labelled(folder)
    return canonical_digest(
        [[file.patient, file_digest(file.image), file_digest(file.mask)] for file in files]
    )
