"""Segmentation of a visit: a reader's guide wins, else one is found; what is known of it is stored."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from prefect.logging import disable_run_logger
from torch import Tensor

from cmrcore.segmentation import Guide, GuidedSegmenter, UNet, carry_guide
from flows.simulate import Recipe, simulate_trial
from storage import Trial, open_trial
from storage.arrays import open_store, read_array, read_notes, read_stack
from storage.config import SegmentConfig
from storage.dicom_series import EchoStack
from tasks.intake import intake
from tasks.plan import Selection, VisitJob, plan_night
from tasks.quantify import quantify
from tasks.segment import segment, segment_series
from tests.cmrcore.hearts import drawn_heart
from tests.tasks.weights import write_weights


@pytest.fixture(autouse=True)
def outside_of_a_run() -> Iterator[None]:
    """Let tasks log nowhere."""
    with disable_run_logger():
        yield


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Simulate a trial of one subject whose reader drew nothing."""
    root = tmp_path_factory.mktemp("segment") / "trial"
    recipe = Recipe(n_subjects=1, n_visits=1, seed=1, guides="none")
    simulate_trial(root, recipe, on_visit=lambda _: None)
    return open_trial(root)


@pytest.fixture(scope="module")
def job(trial: Trial) -> VisitJob:
    """Take the visit in."""
    (job,) = plan_night(trial, Selection()).jobs
    with disable_run_logger():
        intake.fn(
            job.visit,
            job.planned,
            job.uploads,
            trial.config.intake,
            trial.config.privacy,
            None,
            job.digests["intake"],
            False,
        )
    return job


@pytest.fixture
def stack(trial: Trial, job: VisitJob) -> EchoStack:
    """Read the native echoes."""
    return read_stack(open_store(trial.root, "S01", "V1", job.digests["intake"]), "native")


def found_on_echo_2(
    echoes: Float[Tensor, "ti row col"], spacing_mm: tuple[float, float], first_acquired: int
) -> Guide | None:
    """Find a heart on the third echo, wherever the heart is."""
    del spacing_mm, first_acquired
    masks = torch.zeros(3, *echoes.shape[1:], dtype=torch.bool)
    masks[:, : drawn_heart().shape[1], : drawn_heart().shape[2]] = drawn_heart()
    return Guide(masks, 2, "model", 0.7, ("the wall is thin",), ("echo 0: the ring is open",))


def test_a_readers_guide_wins_and_others_are_found(stack: EchoStack) -> None:
    """One slice was drawn by a reader, on its first-acquired echo."""
    uploaded = np.zeros((3, 3, *stack.echoes.shape[2:]), dtype=bool)
    heart = drawn_heart().numpy()
    uploaded[:, 1, 5 : 5 + heart.shape[1], 5 : 5 + heart.shape[2]] = heart
    slices = segment_series(carry_guide, found_on_echo_2, stack, uploaded, 0.25)
    assert [one.guide.origin for one in slices if one is not None] == ["model", "reader", "model"]
    assert [one.guide.echo for one in slices if one is not None] == [
        2,
        int(stack.acquisition_index[1].argmin()),
        2,
    ]
    assert slices[1] is not None
    assert np.array_equal(slices[1].guide.masks.numpy(), uploaded[:, 1])


def test_a_slice_without_any_guide_stays_without_masks(stack: EchoStack) -> None:
    """No network is named and no reader drew: nothing is made up."""
    assert segment_series(carry_guide, None, stack, None, 0.25) == [None, None, None]


def test_guides_are_stored_with_what_is_known_of_them(
    trial: Trial, job: VisitJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zarr keeps reference echo, origin, score and findings; quantify makes rows and flags of them."""
    monkeypatch.setattr("tasks.segment.finder_of", lambda *_: found_on_echo_2)
    config = SegmentConfig(method="carry", alpha=0.25, base="", guided="")
    segment.fn(job.visit, job.digests["intake"], config, "masks", False)
    store = open_store(trial.root, "S01", "V1", "masks")
    (note, _, _) = read_notes(store, "native/guide")["guides"]
    assert note == {
        "origin": "model",
        "score": 0.7,
        "findings": ["the wall is thin"],
        "rejected": ["echo 0: the ring is open"],
    }
    for name in ("reference_echo", "confidence", "agreement", "masks"):
        assert f"native/{name}" in store
    assert np.unique(np.asarray(read_array(store, "post/reference_echo"))).tolist() == [2]
    quantify.fn(job.visit, job.recorded, "masks", trial.config.quantify, trial.config.align, "result", False)
    rows = open_store(trial.root, "S01", "V1", "result").attrs["rows"]
    assert isinstance(rows, dict)
    echoes, flags = rows["echoes"], rows["flags"]
    assert {(row["guide_origin"], row["reference_echo_index"]) for row in echoes} == {("model", 2)}
    assert {"guide_doubtful", "guide_fell_back"} <= {flag["code"] for flag in flags}


def test_a_guided_stage_gives_the_same_bytes_again(trial: Trial, job: VisitJob) -> None:
    """A rerun proves what it computes again; networks that find nothing leave slices without masks."""
    folder = trial.root / "weights"
    config = SegmentConfig(
        method="guided",
        alpha=0.25,
        base=write_weights(folder, guided=False),
        guided=write_weights(folder, guided=True),
    )
    first = segment.fn(job.visit, job.digests["intake"], config, "guided", False)
    again = segment.fn(job.visit, job.digests["intake"], config, "guided", True)
    assert replace(first, seconds=None) == replace(again, seconds=None)
    assert first.device == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert "native/masks" not in open_store(trial.root, "S01", "V1", "guided")


def test_a_guided_network_says_the_same_every_time(stack: EchoStack) -> None:
    """On a CPU, to the last bit: confidences are stored, and a rerun compares bytes."""
    torch.manual_seed(0)
    guided = GuidedSegmenter(UNet(guided=True, widths=(4, 4)).eval())
    one = replace(stack, echoes=stack.echoes[:1, :2])
    (first,), (again,) = (segment_series(guided, found_on_echo_2, one, None, 0.25) for _ in range(2))
    assert first is not None
    assert again is not None
    assert torch.equal(first.found.confidence, again.found.confidence)
    assert torch.equal(first.found.masks, again.found.masks)
