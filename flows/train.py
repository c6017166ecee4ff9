"""The training flow."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast
from uuid import UUID

import torch
from prefect import flow
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from cmrcore.segmentation.train import Recipe
from flows.checkpoint import Progress
from flows.training import Kind, Training, train_network
from storage.digest import file_digest

terminal = logging.getLogger("cmrtrials.progress")
"""Tells a terminal how far the training is."""

Device = Literal["auto", "cpu", "cuda"]

RECIPES: dict[Kind, Recipe] = {
    "base": Recipe(n_steps=6000, n_slices=8, n_echoes=2, learning_rate=2e-3),
    "guided": Recipe(n_steps=2000, n_slices=6, n_echoes=3, learning_rate=1e-3),
}
"""Recipes of the packaged weights. A guided network learns from how the guide fits other echoes, and starts
from a base network, which large steps would spoil."""


def training_of(
    kind: Kind,
    output: str,
    steps: int | None = None,
    seed: int = 0,
    start: str | None = None,
    data: str | None = None,
    development: str | None = None,
    evaluate_every: int = 250,
    patience: int = 12,
    workers: int = 0,
) -> Training:
    """Build a training from the parameters of the flow `train`, which are JSON."""
    recipe = RECIPES[kind]
    return Training(
        kind=kind,
        output=Path(output),
        recipe=replace(recipe, n_steps=steps or recipe.n_steps, seed=seed),
        start=None if start is None else Path(start),
        data=None if data is None else Path(data),
        development=None if development is None else Path(development),
        evaluate_every=evaluate_every,
        patience=patience,
        workers=workers,
    )


@flow(name="train", flow_run_name="train {kind}", persist_result=False)
def train(
    kind: Kind,
    output: str,
    steps: int | None = None,
    seed: int = 0,
    start: str | None = None,
    data: str | None = None,
    development: str | None = None,
    evaluate_every: int = 250,
    patience: int = 12,
    device: Device = "auto",
    workers: int = 0,
) -> str:
    """Train a network, or go on with a training that was interrupted; gives the digest of the weights.

    Parameters
    ----------
    kind
        ``base`` or ``guided``.
    output
        Folder of checkpoint, learning curve, weights and card, all named by the kind.
    steps
        Steps of the optimizer; the learning rate falls until the last. None: as for the packaged weights.
    seed
        Of weights, samples and the split of patients.
    start
        File of weights to start from, for a guided network those of a base network; not the one written.
    data
        Folder of labelled images to learn from, see `storage.labelled`; without it, the digital trial.
    development
        Folder of labelled images that choose among the weights and end the training.
    evaluate_every
        Steps between two scores and checkpoints.
    patience
        Scores that may pass without a better one.
    device
        Where to compute; ``auto``: on a GPU if there is one.
    workers
        Processes that draw samples ahead.
    """
    log = get_run_logger()
    training = training_of(
        kind, output, steps, seed, start, data, development, evaluate_every, patience, workers
    )
    n_steps = training.recipe.n_steps
    chosen = torch.device(
        "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    )
    description = f"training of the {kind} network"
    artifact = cast("UUID", create_progress_artifact(0.0, key=f"train-{kind}", description=description))

    def report(step: int, progress: Progress) -> None:
        _, loss, score = progress.curve[-1]
        update_progress_artifact(artifact, progress=100 * step / n_steps)
        terminal.info("dice %.3f", score, extra={"n_ended": step, "n_in_all": n_steps})
        log.info(
            "%s step=%d/%d loss=%.4f dice=%.4f best=%.4f",
            kind,
            step,
            n_steps,
            loss,
            score,
            progress.best_score,
        )

    weights = train_network(training, chosen, report)
    return f"sha256:{file_digest(weights)}"
