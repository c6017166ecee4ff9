"""Weights of small networks that find nothing, for tests of what is done with any network."""

from pathlib import Path

import torch
from safetensors.torch import save

from cmrcore.segmentation import UNet
from storage.digest import file_digest


def write_weights(folder: Path, *, guided: bool, seed: int = 0) -> str:
    """Write weights into a folder, and give their digest as trial.toml names it.

    Random ones would find a heart in every speck, and contours of noise take long.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{'guided' if guided else 'base'}-{seed}.safetensors"
    network = UNet(guided=guided, widths=(4, 4))
    torch.nn.init.constant_(network.head.bias, -20.0)  # type: ignore[arg-type]
    path.write_bytes(save(network.state_dict()))
    return f"sha256:{file_digest(path)}"
