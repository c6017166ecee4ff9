"""Weights of the networks: found by their digest, loaded once by each worker process."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import safetensors
import torch
from safetensors.torch import load

import cmrcore
from cmrcore.segmentation import UNet, network_from
from storage.config_segment import SegmentConfig
from storage.digest import file_digest
from storage.errors import ConfigError, NotStoredError
from storage.objects import files_under
from storage.place import Place

PACKAGED = Path(cmrcore.__file__).parent / "weights"
"""Weights that the package brings, each with a card."""

WEIGHTS = "weights"
"""Folder of a trial's root for weights that the package does not bring."""

Kind = Literal["base", "guided"]


def needed_weights(root: Place, config: SegmentConfig) -> None:
    """Check that the weights that trial.toml names are there and are of the kind they are named as.

    Raises
    ------
    NotStoredError, ConfigError
        As `load_network`.
    """
    for kind, digest in weights_of(config).items():
        load_network(root, kind, digest, torch.device("cpu"))


def weights_of(config: SegmentConfig) -> dict[Kind, str]:
    """Digest of each kind of weights that a configuration names."""
    named: dict[Kind, str] = {"base": config.base, "guided": config.guided}
    return {kind: digest for kind, digest in named.items() if digest}


@lru_cache(maxsize=4)
def load_network(root: Place, kind: Kind, digest: str, device: torch.device) -> UNet:
    """Load a network in eval mode onto a device.

    Parameters
    ----------
    root
        Folder of the trial.
    kind
        What trial.toml names the weights as.
    digest
        ``sha256:`` and the SHA-256 of the file.
    device
        Where the network shall run.

    Raises
    ------
    NotStoredError
        If neither the package nor the trial has a file of this digest.
    ConfigError
        If the file holds no network, or one of another kind.
    """
    data = _find(root, kind, digest).read_bytes()
    try:
        network = network_from(load(data))
    except (safetensors.SafetensorError, ValueError) as error:
        message = f"segment.{kind}: the weights {digest:.19} hold no network of this version: {error}"
        raise ConfigError(message) from None
    if network.guided != (kind == "guided"):
        message = (
            f"segment.{kind}: the weights {digest:.19} are of a {'guided' if network.guided else 'base'} "
            f"network, expected those of a {kind} one; see `cmrtrials train {kind}`"
        )
        raise ConfigError(message)
    if device.type == "cuda":
        # A CPU is a quarter slower with it.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def _find(root: Place, kind: Kind, digest: str) -> Place:
    places: list[Place] = [PACKAGED, root / WEIGHTS]
    there = {
        f"sha256:{file_digest(path)}": path
        for folder in places
        for path in files_under(folder)
        if path.suffix == ".safetensors" and path.parent == folder
    }
    if digest not in there:
        listed = ", ".join(f"{path.stem} {found}" for found, path in there.items()) or "none"
        message = (
            f"segment.{kind}: no weights with digest {digest}; put their file into weights/ of the trial's "
            f"root, or name one of these: {listed}"
        )
        raise NotStoredError(message)
    return there[digest]
