"""The study of system S1 on the digital trial: what the guide brings, and what it merely copies.

`python -m tests.benchmarks.segmentation_study` prints the tables of `cmrcore/segmentation/README.md`;
``--figure FILE`` draws its figure. The subjects are drawn with seeds that no training uses.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from matplotlib import pyplot as plt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from cmrcore.phantom import simulate_scan
from cmrcore.phantom.difficulty import Difficulty
from cmrcore.phantom.trial import RoleEchoes
from cmrcore.quantify.overlap import dice
from cmrcore.relaxation import fit_t1
from cmrcore.segmentation.contours import masks_from
from cmrcore.segmentation.frame import heart_frame
from cmrcore.segmentation.guide import find_guide
from cmrcore.segmentation.infer import look_in_frame, look_twice
from cmrcore.segmentation.networks import network_from
from cmrcore.segmentation.predict import base_probability
from cmrcore.segmentation.unet import UNet
from flows.simulate import SCHEME_NATIVE, SCHEME_NATIVE_11, SCHEME_POST

SEED = 7_000_000
"""Of the test subjects. Training seeds its draws with [seed, step] below this number."""
ALPHAS = (0.0, 0.25, 0.5, 1.0)
DISPLACED_PX = 2.0
"""Echoes moved further than this are where copying the guide must fail [pixel]."""
N_BOOTSTRAP = 2000


@dataclass(frozen=True, slots=True)
class StudySlice:
    """One slice of one role of one subject."""

    subject: int
    role: str
    spacing_mm: tuple[float, float]
    echoes: Float[Tensor, "ti row col"]
    ti_ms: Float[Tensor, " ti"]
    truth: Bool[Tensor, "label ti row col"]
    moved_px: Float[Tensor, " ti"]
    """Mean displacement of the myocardium from where the first echo shows it [pixel]."""


def draw_slices(n_slices: int, difficulty: Difficulty, roles: tuple[str, ...]) -> Iterator[StudySlice]:
    """Draw at least ``n_slices`` slices of subjects that nobody trained on, three a role and subject."""
    subject = 0
    while n_slices > 0:
        scan = simulate_scan(
            SEED,
            subject,
            0,
            scheme_native=SCHEME_NATIVE_11 if subject % 2 else SCHEME_NATIVE,
            scheme_post=SCHEME_POST,
            difficulty=difficulty,
        )
        spacing_mm = scan.geometry.pixel_spacing_mm
        for role in roles:
            echoes: RoleEchoes = getattr(scan, role)
            for index in range(len(echoes.echoes)):
                truth = echoes.labels[:, index]
                yield StudySlice(
                    subject,
                    role,
                    spacing_mm,
                    echoes.echoes[index],
                    echoes.ti_ms[index],
                    truth,
                    _moved_px(echoes, index, truth[0], spacing_mm),
                )
                n_slices -= 1
        subject += 1


def _moved_px(
    echoes: RoleEchoes, index: int, myocardium: Bool[Tensor, "ti row col"], spacing_mm: tuple[float, float]
) -> Float[Tensor, " ti"]:
    """Mean displacement within the true myocardium of each echo [pixel]."""
    spacing = torch.tensor(spacing_mm)[None, :, None, None]
    away = (echoes.displacement_mm[index] / spacing).norm(dim=1)
    return torch.stack(
        [
            field[mask].mean() if bool(mask.any()) else torch.tensor(0.0)
            for field, mask in zip(away, myocardium, strict=True)
        ]
    )


Answer = Callable[[StudySlice], Bool[Tensor, "ti row col"] | None]
"""Myocardium on every echo of a slice; None where there is no guide to start from."""


def answers(base: UNet, guided: Mapping[str, UNet], alphas: tuple[float, ...]) -> dict[str, Answer]:
    """Every method under study, by the name its row gets."""

    def unguided(one: StudySlice) -> Bool[Tensor, "ti row col"]:
        return _masks(look_twice(base, one.echoes, one.spacing_mm), one.spacing_mm)

    def by_guide(
        network: UNet, alpha: float, guide_of: Callable[[StudySlice], Tensor | None], one: StudySlice
    ) -> Bool[Tensor, "ti row col"] | None:
        guide = guide_of(one)
        frame = None if guide is None else heart_frame(guide, one.spacing_mm)
        if guide is None or frame is None:
            return None
        scaled = alpha * guide[0].float()
        return _masks(look_in_frame(network, one.echoes, one.spacing_mm, frame, scaled), one.spacing_mm)

    def copied(guide_of: Callable[[StudySlice], Tensor | None], one: StudySlice) -> Tensor | None:
        guide = guide_of(one)
        return None if guide is None else guide[0].expand(len(one.echoes), -1, -1)

    predicted = _Remembered(base)
    found: dict[str, Answer] = {"base": unguided}
    for kind, guide_of in (("true guide", _true_guide), ("predicted guide", predicted)):
        found[f"copied guide, {kind}"] = partial(copied, guide_of)
        for name, network in guided.items():
            fixed = name.removeprefix("alpha ")
            for alpha in alphas if fixed == name else (float(fixed),):
                found[f"{name} at {alpha:g}, {kind}"] = partial(by_guide, network, alpha, guide_of)
    return found


class _Remembered:
    """The guide that the base network finds on a slice, searched once."""

    def __init__(self, base: UNet) -> None:
        self._base = base
        self._last: tuple[StudySlice, Tensor | None] | None = None

    def __call__(self, one: StudySlice) -> Tensor | None:
        if self._last is None or self._last[0] is not one:
            look = partial(base_probability, self._base)
            found = find_guide(look, one.echoes, one.spacing_mm, first_acquired=0)
            self._last = (one, None if found is None else found.masks)
        return self._last[1]


def _true_guide(one: StudySlice) -> Tensor:
    return one.truth[:, 0]


def _masks(
    probability: Float[Tensor, "ti label row col"], spacing_mm: tuple[float, float]
) -> Bool[Tensor, "ti row col"]:
    return torch.stack([masks_from(one, spacing_mm)[0] for one in probability])


def score(slices: Iterator[StudySlice], methods: Mapping[str, Answer], total: int) -> pd.DataFrame:
    """One row per method and echo."""
    rows = []
    for number, one in enumerate(track(slices, total=total, description="slices")):
        r_squared = fit_t1(one.echoes, one.ti_ms).r_squared
        for method, answer in methods.items():
            masks = answer(one)
            guide = None if masks is None else _guide_of(method, one, methods)
            inside = r_squared[masks[0]] if masks is not None and bool(masks[0].any()) else None
            for echo in range(len(one.echoes)):
                truth = one.truth[0, echo]
                if not bool(truth.any()):
                    continue
                rows.append(
                    {
                        "slice": number,
                        "subject": one.subject,
                        "role": one.role,
                        "echo": echo,
                        "moved_px": one.moved_px[echo].item(),
                        "method": method,
                        "dice": 0.0 if masks is None else dice(masks[echo], truth),
                        "dice_guide": None if guide is None or masks is None else dice(masks[echo], guide),
                        "r_squared_mean": None if inside is None else inside.nanmean().item(),
                        "r_squared_low": None if inside is None else _low(inside),
                    }
                )
    return pd.DataFrame(rows)


def _guide_of(method: str, one: StudySlice, methods: Mapping[str, Answer]) -> Tensor | None:
    kind = method.rpartition(", ")[2]
    copied = methods.get(f"copied guide, {kind}")
    masks = None if copied is None else copied(one)
    return None if masks is None else masks[0]


def _low(r_squared: Tensor) -> float:
    return (~(r_squared >= 0.95)).float().mean().item()


def interval(by_subject: pd.Series) -> tuple[float, float]:
    """95 % confidence interval of a mean by the bootstrap over subjects."""
    values = by_subject.to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    means = rng.choice(values, size=(N_BOOTSTRAP, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def difference(found: pd.DataFrame, method: str, other: str) -> pd.Series:
    """Mean difference of Dice between two methods, echo by echo, one value per subject."""
    wide = found.pivot_table(index=["subject", "slice", "echo"], columns="method", values="dice")
    return (wide[method] - wide[other]).groupby("subject").mean()


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """One row per method: Dice overall and in parts, agreement with the guide, gain over the base."""
    base = found[found.method == "base"].set_index(["slice", "echo"]).dice
    rows = []
    for method, own in found.groupby("method", sort=False):
        gain = own.set_index(["slice", "echo"]).dice - base
        per_slice = own.drop_duplicates("slice")
        rows.append(
            {
                "method": method,
                "dice": own.dice.mean(),
                "sd": own.dice.std(),
                "first": own[own.echo == 0].dice.mean(),
                "native": own[own.role == "native"].dice.mean(),
                "post": own[own.role == "post"].dice.mean(),
                "moved": own[own.moved_px > DISPLACED_PX].dice.mean(),
                "to guide": own.dice_guide.mean(),
                "gain": gain.mean(),
                **{f"+{step}": (gain > step).mean() for step in (0.1, 0.2, 0.3)},
                **{f"-{step}": (gain < -step).mean() for step in (0.1, 0.2, 0.3)},
                "mean R2 > 0.9": (per_slice.r_squared_mean > 0.9).mean(),
                "low R2 > 10 %": (per_slice.r_squared_low > 0.1).mean(),
            }
        )
    return pd.DataFrame(rows)


def contrasts(found: pd.DataFrame) -> pd.DataFrame:
    """Differences that the study is about, with their confidence intervals."""
    rows = []
    moved = found[found.moved_px > DISPLACED_PX]
    for method in found.method.unique():
        kind = method.rpartition(", ")[2]
        for other, part, where in (
            ("base", found, "all echoes"),
            (f"copied guide, {kind}", moved, f"moved > {DISPLACED_PX:g} px"),
        ):
            if " at " not in method or other not in set(part.method):
                continue
            by_subject = difference(part, method, other)
            low, high = interval(by_subject.dropna())
            rows.append(
                {
                    "method": method,
                    "minus": other,
                    "on": where,
                    "mean": by_subject.mean(),
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def draw(found: pd.DataFrame, file: Path) -> None:
    """Draw Dice by echo, and Dice to truth and guide against alpha."""
    mpl.use("Agg")
    figure, (by_echo, by_alpha) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for method, own in found.groupby("method", sort=False):
        if method == "base" or "predicted" in str(method):
            mean = own.groupby("echo").dice.mean()
            style = "k-" if method == "base" else "--" if "copied" in str(method) else "-"
            by_echo.plot(mean.index, mean, style, label=str(method).removesuffix(", predicted guide"))
    by_echo.set(xlabel="echo in the order of acquisition", ylabel="Dice of the myocardium", ylim=(0.5, 1))
    by_echo.legend(fontsize=8)
    dialed = found[found.method.str.match(r"guided at .*predicted")]
    alpha = dialed.method.str.extract(r" at ([\d.]+)")[0].astype(float)
    for column, label in (("dice", "with the truth"), ("dice_guide", "with the guide")):
        mean = dialed.groupby(alpha)[column].mean()
        by_alpha.plot(mean.index, mean, "o-", label=label)
    by_alpha.set(xlabel="alpha", ylabel="Dice", ylim=(0.5, 1))
    by_alpha.legend(fontsize=8)
    figure.savefig(file, dpi=100)


def show_table(title: str, table: pd.DataFrame) -> None:
    """Print a table with three decimals."""
    shown = Table(*map(str, table.columns), title=title)
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    Console(width=200).print(shown)


def read_networks(folder: Path) -> dict[str, UNet]:
    """Read every network in a folder by its file's name; one must be ``base``."""
    networks = {file.stem: network_from(load_file(file)) for file in sorted(folder.glob("*.safetensors"))}
    if "base" not in networks:
        message = f"no base.safetensors among {sorted(networks)}"
        raise FileNotFoundError(message)
    return networks


def main() -> None:
    """Score every network of a folder on the digital trial and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("cmrcore/weights"))
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--difficulty", choices=("clean", "typical", "hard"), default="typical")
    parser.add_argument("--roles", nargs="+", choices=("native", "post"), default=["native", "post"])
    parser.add_argument("--alphas", nargs="+", type=float, default=list(ALPHAS))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--rows", type=Path, help="Parquet file for the scores of every echo")
    chosen = parser.parse_args()
    networks = read_networks(chosen.weights)
    base = networks.pop("base")
    methods = answers(base, networks, tuple(chosen.alphas))
    slices = draw_slices(chosen.slices, chosen.difficulty, tuple(chosen.roles))
    found = score(slices, methods, chosen.slices)
    if chosen.rows:
        found.to_parquet(chosen.rows)
    title = f"{found.slice.nunique()} slices, {chosen.difficulty}, {' and '.join(chosen.roles)}"
    show_table(f"Dice of the myocardium: {title}", summary(found))
    show_table("Differences of Dice, 95 % confidence by the bootstrap over subjects", contrasts(found))
    if chosen.figure:
        draw(found, chosen.figure)


if __name__ == "__main__":
    main()
