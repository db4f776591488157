"""The offline model's autoencoder: 32 pixels to a latent cell, 16 channels, plain `AutoencoderKL`.

Its encoder is not trained but built: a linear map of each cell's 4 x 4 block means (48 numbers) to the
16 directions that vary most. `AutoencoderKL` can hold an exact linear map: a residual block whose last
convolution is zero is the identity, SiLU(x) - SiLU(-x) = x, and a norm whose input holds large constants
divides by a constant. So latents can be computed from a drawing of an eighth of the size, and the decoder
can be trained apart.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

LATENT_CHANNELS = 16
CELL = 32
"""Pixels of the side of a latent cell."""
BLOCK = 8
"""Pixels of the side of the blocks whose means the encoder sees."""

_CHANNELS = (8, 16, 24, 32, 40, 40)
_ANCHOR = 50.0
"""The constant beside which a latent's share of the norm's variance is below a thousandth."""
_DECODER_ANCHOR = 8.0
_LOG_VARIANCE = -18.0


def build_autoencoder() -> AutoencoderKL:
    """An autoencoder with default weights; `install_basis` makes it one that works."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(_CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(_CHANNELS),
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=512,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def block_means(picture: Tensor) -> Tensor:
    """Means (B, 3, H/8, W/8) of a picture (B, 3, H, W)."""
    return functional.avg_pool2d(picture, BLOCK)


def cells(means: Tensor) -> Tensor:
    """Block means (B, 3, h, w) as one row of 48 per latent cell: (B, 48, h/4, w/4)."""
    return functional.pixel_unshuffle(means, CELL // BLOCK)


def principal_basis(samples: Tensor, *, floor: float) -> Tensor:
    """The map (16, 48) from a cell's block means to its latents, of cells (N, 48) about a mean of zero.

    Directions are scaled towards unit variance so that edges, which are faint, weigh as much as areas do;
    `floor` (a share of the first direction's deviation) bounds how much a faint direction is amplified.
    """
    covariance = samples.double().T @ samples.double() / len(samples)
    variances, directions = torch.linalg.eigh(covariance)
    order = variances.argsort(descending=True)[:LATENT_CHANNELS]
    deviations = variances[order].sqrt()
    basis = directions[:, order].T / deviations.clamp(min=floor * float(deviations[0]))[:, None]
    # An eigenvector's sign is arbitrary and may differ between machines.
    upright: Tensor = (basis * basis.sum(1, keepdim=True).sign()).float()
    return upright


def encode_means(means: Tensor, basis: Tensor) -> Tensor:
    """Latents (B, 16, h/4, w/4) of block means (B, 3, h, w)."""
    return torch.einsum("kc,bcyx->bkyx", basis, cells(means))


@torch.no_grad()
def install_basis(vae: AutoencoderKL, basis: Tensor) -> None:
    """Build the encoder from the basis, and start the decoder as a smooth enlargement of each cell's mean."""
    for block in vae.modules():
        if block.__class__.__name__ == "ResnetBlock2D":
            nn.init.zeros_(block.conv2.weight)
            nn.init.zeros_(block.conv2.bias)
            if block.conv_shortcut is not None:
                _identity(block.conv_shortcut)
    _build_encoder(vae.encoder, basis)
    _start_decoder(vae.decoder, basis)


def _identity(convolution: nn.Conv2d) -> None:
    nn.init.dirac_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def _build_encoder(encoder: Any, basis: Tensor) -> None:
    _identity(encoder.conv_in)
    downs = [block.downsamplers[0].conv for block in encoder.down_blocks[:-1]]
    for convolution in downs:
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    for convolution in downs[:3]:
        for colour in range(3):
            convolution.weight[colour, colour, :2, :2] = 0.25
    for colour in range(3):
        for y in range(2):
            for x in range(2):
                downs[3].weight[colour * 4 + y * 2 + x, colour, y, x] = 1.0
    # In `cells`, a row is (colour, row of four, column of four); here it is (colour, y, x) of (Y, X).
    split = basis.reshape(LATENT_CHANNELS, 3, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4)
    kernel = split.reshape(LATENT_CHANNELS, 12, 2, 2)
    downs[4].weight[:LATENT_CHANNELS, :12, :2, :2] = kernel
    downs[4].weight[LATENT_CHANNELS : 2 * LATENT_CHANNELS, :12, :2, :2] = -kernel
    _linear_end(encoder, 2 * LATENT_CHANNELS, _ANCHOR)
    anchored = encoder.mid_block.resnets[-1].conv2
    anchored.bias[2 * LATENT_CHANNELS :] = _ANCHOR * torch.tensor([1.0, -1.0] * 4)
    for channel in range(LATENT_CHANNELS):
        encoder.conv_out.weight[channel, channel, 1, 1] = 1.0
        encoder.conv_out.weight[channel, LATENT_CHANNELS + channel, 1, 1] = -1.0
    encoder.conv_out.bias[LATENT_CHANNELS:] = _LOG_VARIANCE


def _linear_end(coder: Any, signal_channels: int, anchor: float) -> None:
    """Let the last norm multiply by one where its input is `signal_channels` channels beside the anchors."""
    norm = coder.conv_norm_out
    anchors = norm.num_channels - signal_channels
    nn.init.constant_(norm.weight, anchor * (anchors / norm.num_channels) ** 0.5)
    nn.init.zeros_(norm.bias)
    nn.init.zeros_(coder.conv_out.weight)
    nn.init.zeros_(coder.conv_out.bias)


def _start_decoder(decoder: Any, basis: Tensor) -> None:
    """Signal channels: red, green, blue and their negatives; the rest carries constants or nothing."""
    mean_of_cell = torch.linalg.pinv(basis.double()).float().reshape(3, 16, LATENT_CHANNELS).mean(1)
    nn.init.zeros_(decoder.conv_in.bias)
    decoder.conv_in.weight[:6] = 0.0
    decoder.conv_in.weight[:3, :, 1, 1] = mean_of_cell
    decoder.conv_in.weight[3:6, :, 1, 1] = -mean_of_cell
    bilinear = torch.tensor([0.25, 0.5, 0.25])
    for block in decoder.up_blocks[:-1]:
        convolution = block.upsamplers[0].conv
        nn.init.zeros_(convolution.bias)
        convolution.weight[:6] = 0.0
        for channel in range(6):
            convolution.weight[channel, channel] = bilinear[:, None] * bilinear[None, :]
    last = decoder.up_blocks[-1].resnets
    # Only the signal reaches the last norm, beside its two anchors.
    last[0].conv_shortcut.weight[6:] = 0.0
    last[-1].conv2.bias[6:] = _DECODER_ANCHOR * torch.tensor([1.0, -1.0])
    _linear_end(decoder, 6, _DECODER_ANCHOR)
    # The anchors must not reach the last convolution: its weights are trained, and they are large.
    decoder.conv_norm_out.weight[6:] = 0.0
    for colour in range(3):
        decoder.conv_out.weight[colour, colour, 1, 1] = 1.0
        decoder.conv_out.weight[colour, 3 + colour, 1, 1] = -1.0
