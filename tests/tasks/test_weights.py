"""Weights: found by digest, of the kind they are named as, loaded once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from storage.config_segment import SegmentConfig
from storage.digest import file_digest
from storage.errors import ConfigError, NotStoredError
from tasks.weights import PACKAGED, load_network, needed_weights, weights_of
from tests.storage.drawn_uploads import demo_config
from tests.tasks.weights import write_weights

CPU = torch.device("cpu")


def config(base: str = "", guided: str = "") -> SegmentConfig:
    """Make the configuration of a night."""
    return SegmentConfig(
        method="guided" if guided else "carry", alpha=0.25, base=base, guided=guided, guide_from="visit"
    )


def test_weights_lie_in_the_trials_root(tmp_path: Path) -> None:
    """A trial brings its own networks; a worker process loads each of them once."""
    base = write_weights(tmp_path / "weights", guided=False)
    guided = write_weights(tmp_path / "weights", guided=True)
    needed_weights(tmp_path, config(base, guided))
    network = load_network(tmp_path, "guided", guided, CPU)
    assert network.guided
    assert not network.training
    assert load_network(tmp_path, "guided", guided, CPU) is network
    assert not load_network(tmp_path, "base", base, CPU).guided


def test_only_named_weights_are_needed(tmp_path: Path) -> None:
    """A trial whose readers draw every guide needs no network."""
    assert weights_of(config()) == {}
    needed_weights(tmp_path, config())


def test_a_digest_that_nobody_has_is_named_with_those_there_are(tmp_path: Path) -> None:
    """The operator sees which file to bring, or which digest was meant."""
    there = write_weights(tmp_path / "weights", guided=False)
    with pytest.raises(NotStoredError, match=f"no weights with digest sha256:0000.*base-0 {there}"):
        needed_weights(tmp_path, config(base="sha256:" + "0" * 64))


def test_weights_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    """Two digests swapped in trial.toml."""
    guided = write_weights(tmp_path / "weights", guided=True)
    with pytest.raises(ConfigError, match=r"segment\.base: the weights .* are of a guided network"):
        needed_weights(tmp_path, config(base=guided))


def test_the_demo_names_packaged_weights(tmp_path: Path) -> None:
    """Who copies it needs no file from elsewhere."""
    needed_weights(tmp_path, demo_config().segment)


def test_packaged_weights_are_small_and_have_a_card() -> None:
    """Under 10 MB and 2.5 million parameters; the card tells digest and limits."""
    for path in PACKAGED.glob("*.safetensors"):
        digest = f"sha256:{file_digest(path)}"
        card = path.with_suffix(".md").read_text()
        assert digest in card
        assert "ot for clinical use" in card
        assert path.stat().st_size < 10e6
        assert sum(tensor.numel() for tensor in load_file(path).values()) < 2.5e6


@pytest.mark.parametrize("content", [b"", b"not weights at all"], ids=["empty", "garbage"])
def test_a_file_that_holds_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    """It has the digest that trial.toml names, and still nothing can be computed with it."""
    path = tmp_path / "weights" / "broken.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="hold no network of this version"):
        needed_weights(tmp_path, config(base=f"sha256:{file_digest(path)}"))
