"""Training as a flow: resumed after a kill, stopped when nothing gets better, on one's own images too."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file

from cmrcore.segmentation import UNet, network_from
from cmrcore.segmentation.own_images import LabelledSlice, draw_slices
from cmrcore.segmentation.train import Recipe, Samples, draw_samples
from flows import training as module
from flows.checkpoint import Progress, read_checkpoint, write_checkpoint
from flows.cli_make import train as train_command
from flows.train import training_of
from flows.training import Kind, Training, TrainingError, check_training, train_network
from storage.errors import RefusedError
from tests.flows.trials import Cmrtrials

CPU = torch.device("cpu")
RECIPE = Recipe(n_steps=6, seed=3, n_slices=1, n_echoes=2)
VALUES = {0: 2, 1: 3, 2: 1}
"""Voxel value of each label."""


@pytest.fixture(scope="module")
def drawn() -> dict[int, Samples]:
    """Draw the samples of every step once."""
    return {step: draw_samples(RECIPE, step) for step in range(RECIPE.n_steps)}


@pytest.fixture(scope="module")
def slices() -> list[LabelledSlice]:
    """Draw slices for the score once."""
    return draw_slices(3, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, drawn: dict[int, Samples], slices: list[LabelledSlice]) -> None:
    """Train a small network on few images."""
    monkeypatch.setattr(module, "UNet", lambda *, guided: UNet(guided=guided, widths=(4, 4)))
    monkeypatch.setattr(module, "draw_samples", lambda _, step: drawn[step])
    monkeypatch.setattr(module, "draw_slices", lambda *_: slices)


def training(output: Path, **changes: object) -> Training:
    """Make a short training with a checkpoint at every second step."""
    short = Training(kind="base", output=output, recipe=RECIPE, evaluate_every=2)
    return replace(short, **changes)  # type: ignore[arg-type]


def quiet(step: int, progress: Progress) -> None:
    """Report nothing."""


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: dict[int, Samples]
) -> None:
    """It was killed between two checkpoints; the steps since the last are taken again."""
    through = train_network(training(tmp_path / "through"), CPU, quiet)

    def killed(_: Recipe, step: int) -> Samples:
        if step == 5:
            raise KeyboardInterrupt
        return drawn[step]

    with monkeypatch.context() as patch:
        patch.setattr(module, "draw_samples", killed)
        with pytest.raises(KeyboardInterrupt):
            train_network(training(tmp_path / "killed"), CPU, quiet)
    assert read_checkpoint(training(tmp_path / "killed").checkpoint)[0]["step"] == 4
    resumed = train_network(training(tmp_path / "killed"), CPU, quiet)
    assert resumed.read_bytes() == through.read_bytes()
    curves = [
        read_checkpoint(training(tmp_path / name).checkpoint)[1].curve for name in ("through", "killed")
    ]
    assert curves[0] == curves[1]
    assert [step for step, _, _ in curves[0]] == [2, 4, 6]


def test_a_training_leaves_weights_a_card_and_its_curve(tmp_path: Path) -> None:
    """The card tells the digest, what was learned from, the score and the limits."""
    weights = train_network(training(tmp_path), CPU, quiet)
    assert not network_from(load_file(weights)).guided
    card = weights.with_suffix(".md").read_text()
    for part in ("sha256:", "digital trial", "mean Dice", "Not for clinical use", "| seed | 3 |"):
        assert part in card
    assert training(tmp_path).curve.stat().st_size > 5000


def test_a_training_stops_when_nothing_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second score is the best; after two more without a better one it ends, and its weights stay."""
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    monkeypatch.setattr(module, "mean_dice", lambda *_: next(scores))
    kept: list[bytes] = []

    def keep(*_: object) -> None:
        kept.append((tmp_path / "base.safetensors").read_bytes())

    weights = train_network(training(tmp_path, evaluate_every=1, patience=2), CPU, keep)
    assert len(kept) == 4
    assert weights.read_bytes() == kept[1] == kept[3] != kept[0]
    assert "mean Dice 0.700 at step 2" in weights.with_suffix(".md").read_text()


def test_another_recipe_needs_another_folder(tmp_path: Path) -> None:
    """A typing error must not go on with half of another training."""
    train_network(training(tmp_path), CPU, quiet)
    with pytest.raises(TrainingError, match="another learning_rate, seed"):
        train_network(training(tmp_path, recipe=replace(RECIPE, seed=4, learning_rate=1e-4)), CPU, quiet)


def test_a_guided_network_starts_from_a_base_network(tmp_path: Path) -> None:
    """In the same folder, each with files of its own; and a base network not from a guided one."""
    base = train_network(training(tmp_path), CPU, quiet)
    alone = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    guided = train_network(training(tmp_path, kind="guided", start=base), CPU, quiet)
    assert network_from(load_file(guided)).guided
    assert {name: (tmp_path / name).read_bytes() for name in alone} == alone
    assert len(list(tmp_path.iterdir())) == 2 * len(alone) == 8
    with pytest.raises(TrainingError, match="cannot start from the weights of a guided one"):
        train_network(training(tmp_path / "wrong", start=guided), CPU, quiet)
    (tmp_path / "broken").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="to start from cannot be used"):
        train_network(training(tmp_path / "none", start=tmp_path / "broken"), CPU, quiet)


def test_weights_to_start_from_are_not_written_over(tmp_path: Path) -> None:
    """They may be the only copy, and the same command could not be resumed."""
    start = train_network(training(tmp_path), CPU, quiet)
    before = start.read_bytes()
    training(tmp_path).checkpoint.unlink()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(TrainingError, match="are the file that the training writes"):
        train_network(training(tmp_path / "link", start=start), CPU, quiet)
    assert start.read_bytes() == before


def test_a_training_that_goes_astray_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: dict[int, Samples]
) -> None:
    """No score is better than NaN, and none worse: it would end without weights; the checkpoint stays."""
    scores = iter([0.5, float("nan")])
    monkeypatch.setattr(module, "mean_dice", lambda *_: next(scores))
    with pytest.raises(TrainingError, match="the score at step 4 is nan, expected a finite number"):
        train_network(training(tmp_path), CPU, quiet)
    assert read_checkpoint(training(tmp_path).checkpoint)[0]["step"] == 2
    broken = replace(drawn[0], images=torch.full_like(drawn[0].images, float("nan")))
    monkeypatch.setattr(module, "draw_samples", lambda *_: broken)
    with pytest.raises(TrainingError, match="the loss at step 1 is nan"):
        train_network(training(tmp_path / "loss"), CPU, quiet)


def test_one_can_train_on_ones_own_images(tmp_path: Path, slices: list[LabelledSlice]) -> None:
    """Patients are split; what a training depends on includes every file."""
    for patient, one in zip(("a", "b", "c"), slices * 3, strict=False):
        write_labelled(tmp_path / "data" / patient, one)
    weights = train_network(training(tmp_path / "own", data=tmp_path / "data"), CPU, quiet)
    assert "labelled images of one's own" in weights.with_suffix(".md").read_text()
    (tmp_path / "data" / "c" / "1_mask.nii.gz").unlink()
    (tmp_path / "data" / "c" / "1_image.nii.gz").unlink()
    with pytest.raises(TrainingError, match="another data"):
        train_network(training(tmp_path / "own", data=tmp_path / "data"), CPU, quiet)


def test_blood_pools_alone_choose_a_base_network(tmp_path: Path, slices: list[LabelledSlice]) -> None:
    """Sunnybrook's readers drew nothing else; a guided network's score needs a myocardium for its guide."""
    for patient, one in zip(("a", "b"), slices, strict=False):
        write_labelled(tmp_path / "pools" / patient, one, drawn=(1,))
    chosen = training(tmp_path / "base", development=tmp_path / "pools")
    weights = train_network(chosen, CPU, quiet)
    (_, _, score), *_ = read_checkpoint(chosen.checkpoint)[1].curve
    assert 0 < score < 1
    assert "labelled images of patients that were not learned from" in weights.with_suffix(".md").read_text()
    with pytest.raises(TrainingError, match="no myocardium is drawn on any slice of 2 labelled images"):
        check_training(replace(chosen, kind="guided"))


def test_what_cannot_begin_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Also by the command, before it starts a server."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").write_bytes(b"no weights")
    for wrong in ({"development": tmp_path / "empty"}, {"start": tmp_path / "broken"}):
        with pytest.raises((TrainingError, RefusedError)):
            check_training(training(tmp_path / "out", **wrong))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [("development", "no labelled images"), ("start", "to start from cannot be used")],
)
def test_the_command_refuses_before_it_starts_a_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    said: str,
) -> None:
    """A typing error costs a second, not the start of a server."""
    monkeypatch.setattr("flows.server.prefect_server", lambda: pytest.fail("a server was started"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").write_bytes(b"no weights")
    given: dict[str, Any] = {option: tmp_path / ("empty" if option == "development" else "broken")}
    with pytest.raises(typer.Exit) as ended:
        train_command("base", tmp_path / "out", **given)
    assert ended.value.exit_code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "n_steps", "rate"), [("base", 6000, 2e-3), ("guided", 2000, 1e-3)])
def test_without_options_the_recipe_is_that_of_the_packaged_weights(
    kind: Kind, n_steps: int, rate: float
) -> None:
    """As their cards say."""
    recipe = training_of(kind, "out").recipe
    assert (recipe.n_steps, recipe.learning_rate) == (n_steps, rate)


def write_labelled(folder: Path, one: LabelledSlice, drawn: tuple[int, ...] = (0, 1, 2)) -> None:
    """Write a slice as an image and a mask with axes col, row, slice, echo."""
    folder.mkdir(parents=True)
    labels = sum(VALUES[index] * one.masks[:, index].numpy().astype(np.uint8) for index in drawn)
    for name, values in {"image": one.images.numpy(), "mask": np.asarray(labels)}.items():
        volume = np.ascontiguousarray(values.transpose(2, 1, 0)[:, :, None])
        affine = np.diag([*one.spacing_mm[::-1], 8.0, 1.0])
        image = nibabel.Nifti1Image(volume, affine)  # type: ignore[no-untyped-call]
        image.to_filename(folder / f"1_{name}.nii.gz")


def test_a_checkpoint_gives_back_what_was_put_in(tmp_path: Path) -> None:
    """Tensors of every kind, numbers, lists, and dictionaries with numbers as keys."""
    state = {
        "step": 3,
        "network": {"weight": torch.randn(2, 3), "count": torch.tensor(7)},
        "optimizer": {"state": {0: {"exp": torch.ones(2)}}, "groups": [{"lr": 1e-3, "betas": [0.9, 0.99]}]},
    }
    write_checkpoint(tmp_path / "c", state, Progress({"seed": 1}, ((1, 0.5, 0.25),)))
    again, progress = read_checkpoint(tmp_path / "c")
    assert again["step"] == 3
    assert torch.equal(again["network"]["weight"], state["network"]["weight"])  # type: ignore[index]
    assert again["network"]["count"].item() == 7
    assert again["optimizer"]["state"][0]["exp"].tolist() == [1.0, 1.0]
    assert again["optimizer"]["groups"] == [{"lr": 1e-3, "betas": [0.9, 0.99]}]
    assert progress == Progress({"seed": 1}, ((1, 0.5, 0.25),))


@pytest.mark.slow
def test_the_command_trains_and_prints_the_digest(tmp_path: Path, on_site: Cmrtrials) -> None:
    """One step of the real network, in a Prefect flow; what it prints is a line for trial.toml."""
    trained = on_site("train", "base", tmp_path / "net", "--steps", "1", "--device", "cpu")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.startswith('base = "sha256:')
    assert (tmp_path / "net" / "base.safetensors").stat().st_size < 10e6
