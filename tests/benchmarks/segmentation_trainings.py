"""Train the networks that the study of system S1 compares: equally long, on native `typical` echoes alone.

`python -m tests.benchmarks.segmentation_trainings FOLDER --base STEPS --guided STEPS` leaves one file each;
then `python -m tests.benchmarks.segmentation_study --weights FOLDER` compares them, on what they have seen
and, with ``--roles post`` or ``--difficulty hard``, on what they have not.
"""

import argparse
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file

from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.train import Recipe, Samples, Trainer, draw_samples
from cmrcore.segmentation.unet import UNet, guided_from

SEEN = Recipe(n_steps=1, physics_share=1.0, post_share=0.0, hard_share=0.0)
"""Native echoes of simulated sequences at difficulty `typical`, and nothing else."""
GUIDED = {
    "guided": SEEN,
    "guided, whole target": replace(SEEN, guide_target="whole"),
    "alpha 0": replace(SEEN, alpha=0.0),
    "alpha 0.25": replace(SEEN, alpha=0.25),
    "alpha 1": replace(SEEN, alpha=1.0),
}


class _Steps(torch.utils.data.Dataset[Samples]):
    """Samples of every step, for workers that draw ahead."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __len__(self) -> int:
        return self._recipe.n_steps

    def __getitem__(self, step: int) -> Samples:
        return draw_samples(self._recipe, step)


def trained(network: UNet, recipe: Recipe, name: str, workers: int) -> UNet:
    """Train a network to the end of its recipe."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(network, recipe, device)
    steps: Iterator[Samples] = iter(
        torch.utils.data.DataLoader(_Steps(recipe), batch_size=None, num_workers=workers)
    )
    for samples in track(steps, total=recipe.n_steps, description=name):
        trainer.learn(samples)
    return trainer.averaged.cpu()


def main() -> None:
    """Train what is not in the folder yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=int, default=4000, help="steps of the base network")
    parser.add_argument("--guided", type=int, default=1500, help="steps of each guided network")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    file = chosen.folder / "base.safetensors"
    if not file.exists():
        recipe = replace(SEEN, n_steps=chosen.base)
        save_file(trained(UNet(guided=False), recipe, "base", chosen.workers).state_dict(), file)
    for name, recipe in GUIDED.items():
        target = chosen.folder / f"{name}.safetensors"
        if not target.exists():
            start = guided_from(copy.deepcopy(network_from(load_file(file))))
            network = trained(start, replace(recipe, n_steps=chosen.guided), name, chosen.workers)
            save_file(network.state_dict(), target)


if __name__ == "__main__":
    main()
