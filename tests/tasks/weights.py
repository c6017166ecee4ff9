"""Weights of small networks that know nothing, for tests of what is done with any network."""

from pathlib import Path

import torch
from safetensors.torch import save

from cmrcore.segmentation import UNet
from storage.digest import file_digest


def write_weights(folder: Path, *, guided: bool, seed: int = 0) -> str:
    """Write random weights into a folder, and give their digest as trial.toml names it."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{'guided' if guided else 'base'}-{seed}.safetensors"
    path.write_bytes(save(UNet(guided=guided, widths=(4, 4)).state_dict()))
    return f"sha256:{file_digest(path)}"
