"""Networks from stored weights."""

from collections.abc import Mapping

from torch import Tensor

from cmrcore.errors import InvalidInputError
from cmrcore.segmentation.unet import UNet


def network_from(tensors: Mapping[str, Tensor]) -> UNet:
    """Build the network that weights belong to, ready for use; guided or base is read from their shapes.

    Raises
    ------
    InvalidInputError
        If the weights are not those of a `UNet`.
    """
    n_levels = sum(name.startswith("down.") and name.endswith(".0.weight") for name in tensors)
    try:
        widths = tuple(tensors[f"down.{level}.0.weight"].shape[0] for level in range(n_levels))
        network = UNet(guided=tensors["down.0.0.weight"].shape[1] == 8, widths=widths)
        network.load_state_dict(dict(tensors))
    except (KeyError, IndexError, RuntimeError) as error:
        message = f"these {len(tensors)} tensors are not the weights of a U-Net of this project: {error}"
        raise InvalidInputError(message) from error
    return network.eval()
