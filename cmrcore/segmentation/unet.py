"""The network: a U-Net that sees an echo, and the guiding mask if it is the guided variant."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

N_LABELS = 3
"""One sigmoid each for LV myocardium, LV blood pool and RV, in the order of `LABELS`."""
_PATCH = 2
"""Side of the squares of pixels that enter and leave the network as channels."""
_WIDTHS = (32, 48, 96, 160)
"""Channels at full, half, quarter and eighth size of the patches."""


class UNet(nn.Module):
    """A U-Net on squares of 2 x 2 pixels.

    Ronneberger et al. 2015 (arXiv:1505.04597) with instance normalization, as in Isensee et al. 2021
    (doi:10.1038/s41592-020-01008-z). Folding 2 x 2 pixels into channels (Shi et al. 2016, arXiv:1609.05158)
    quarters the work at the finest size, which is what a CPU spends its time on; logits leave at full size.
    The blocks are plain torch: importing MONAI's would cost each worker process four seconds.
    """

    def __init__(self, *, guided: bool, widths: tuple[int, ...] = _WIDTHS) -> None:
        super().__init__()
        self.guided = guided
        self.widths = widths
        channels = (1 + guided) * _PATCH**2
        self.down = nn.ModuleList()
        for width in widths:
            self.down.append(_block(channels, width))
            channels = width
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(_block(channels + width, width))
            channels = width
        self.head = nn.Conv2d(channels, N_LABELS * _PATCH**2, kernel_size=1)

    def forward(
        self, image: Float[Tensor, "n row col"], scaled_guide: Float[Tensor, "n row col"] | None = None
    ) -> Float[Tensor, "n label row col"]:
        """Logits of every label; sides of the images are multiples of `multiple_of`.

        Parameters
        ----------
        image
            Echoes as `cmrcore.segmentation.frame.look` shows them.
        scaled_guide
            The guide's myocardium times alpha, in the same frame; for the guided variant only.
        """
        seen = [image] if scaled_guide is None else [image, scaled_guide]
        features = nn.functional.pixel_unshuffle(torch.stack(seen, dim=1), _PATCH)
        skipped = []
        for index, block in enumerate(self.down):
            features = block(features if index == 0 else _halved(features))
            skipped.append(features)
        skipped.pop()
        for block in self.up:
            features = block(torch.cat([_doubled(features), skipped.pop()], dim=1))
        return nn.functional.pixel_shuffle(self.head(features), _PATCH)

    @property
    def multiple_of(self) -> int:
        """What the sides of an image must be divisible by."""
        return int(_PATCH * 2 ** (len(self.widths) - 1))


def guided_from(base: UNet) -> UNet:
    """Start a guided network from a base network: the same answers until the guide's weights have grown."""
    guided = UNet(guided=True, widths=base.widths)
    weights = dict(base.state_dict())
    first = "down.0.0.weight"
    weights[first] = torch.cat([weights[first], torch.zeros_like(weights[first])], dim=1)
    guided.load_state_dict(weights)
    return guided


def _block(n_in: int, n_out: int) -> nn.Sequential:
    """Two convolutions, each normalized per image and channel.

    Groups of one channel are instances; torch's `InstanceNorm2d` takes six times as long on a CPU.
    """
    layers: list[nn.Module] = []
    for channels in (n_in, n_out):
        layers += [
            nn.Conv2d(channels, n_out, kernel_size=3, padding=1, bias=False),
            nn.GroupNorm(num_groups=n_out, num_channels=n_out),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


# On a CPU, torch's own max_pool2d and interpolate take ten and three times as long as these.


def _halved(features: Float[Tensor, "n channel row col"]) -> Float[Tensor, "n channel half_row half_col"]:
    """Largest of every 2 x 2 values."""
    upper, lower = features[..., ::2, :], features[..., 1::2, :]
    upper, lower = (torch.maximum(one[..., ::2], one[..., 1::2]) for one in (upper, lower))
    return torch.maximum(upper, lower)


def _doubled(features: Float[Tensor, "n channel row col"]) -> Float[Tensor, "n channel rows cols"]:
    """Each value four times."""
    n, channels, rows, cols = features.shape
    repeated = features[:, :, :, None, :, None].expand(n, channels, rows, 2, cols, 2)
    return repeated.reshape(n, channels, 2 * rows, 2 * cols)
