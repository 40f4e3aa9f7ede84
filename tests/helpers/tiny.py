"""What the core tests share: a small deterministic prior, images like it, and dense matrices of small operators."""

import math
from functools import lru_cache

import torch

from iasolve.networks import HVAE, NetworkConfig, Reader, ReaderConfig
from iasolve.priors import HVAEPrior, load_prior
from iasolve.spectrum import fft2, ifft2, radius

SIZE = 32


def tiny_config(**changes):
    values = {
        "size": SIZE,
        "widths": (16,) * 6,
        "layers": (1, 1, 2, 2, 2, 1),
        "latents": (4,) * 6,
        "encoder_blocks": (1,) * 6,
        "grid_cap": 16,
        "head_blocks": 1,
    }
    return NetworkConfig(**(values | changes))


def decaying_power(size=SIZE, exponent=2.5):
    """Power of each frequency, unshifted, of images whose root mean square is 1."""
    power = (1.0 + radius(size, size).double()) ** -exponent
    return power * size**2 / power.sum()


def tiny_network(seed=0, **changes):
    """A network whose every parameter is off its initial value, with plausible statistics."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed)
    network = HVAE(tiny_config(**changes))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    torch.set_rng_state(torch_state)
    spectrum = network.spectrum
    power = decaying_power(network.config.size).float().expand_as(network.power)
    ring = spectrum.ring_means(spectrum.half(power)).sqrt()
    network.power.copy_(power)
    network.ring_std.copy_(ring)
    network.sigma_x.copy_(0.3 * ring)
    return network


@lru_cache
def bundled(name):
    """A prior that comes with iasolve, to read from, never to change."""
    return load_prior(name)


@lru_cache
def tiny_prior(dtype=torch.float32, seed=0, is_complex=False):
    """A prior to read from, never to change."""
    return HVAEPrior(tiny_network(seed, is_complex=is_complex), "tiny", {}).to(dtype=dtype)


def tiny_reader(is_complex=False, dtype=torch.float32):
    """A reader whose every parameter is off its initial value, with the tiny prior's power."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(SIZE, is_complex=is_complex, widths=(8, 12), blocks=(1, 1), embedding=16))
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    torch.set_rng_state(torch_state)
    reader.power.copy_(decaying_power(SIZE).float())
    return reader.to(dtype).eval().requires_grad_(False)


@lru_cache
def reading_prior(dtype=torch.float32, is_complex=False, **card):
    """The tiny prior with a reader beside it."""
    network = tiny_network(is_complex=is_complex)
    return HVAEPrior(network, "reading", {"shift": 2.0} | card, reader=tiny_reader(is_complex)).to(dtype=dtype)


def mute_prior(dtype=torch.float32):
    """A prior whose latents leave no trace in the image: given ``y``, the posterior is exactly Gaussian."""
    network = tiny_network()
    with torch.no_grad():
        for index in range(len(network.scales)):
            for layer in network.stage(index).layers:
                layer.project.weight.zero_()
    return HVAEPrior(network, "mute", {}).to(dtype=dtype)


def images(count, seed=0, size=SIZE, dtype=torch.float32):
    """Random fields with the tiny prior's power, ``(count, 1, size, size)``; complex for a complex dtype."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
    white = torch.randn((count, 1, size, size), generator=generator, dtype=torch.promote_types(dtype, real))
    x = ifft2(decaying_power(size).sqrt() * fft2(white))
    return (x if dtype.is_complex else x.real).to(dtype)


def dense(operator, dtype=torch.float64):
    """Matrix of an operator on flattened inputs."""
    count = math.prod(operator.in_shape)
    basis = torch.eye(count, dtype=dtype).reshape(count, *operator.in_shape)
    return operator(basis).reshape(count, -1).T


def stacked(matrix):
    """Real form of a complex measurement: real parts over imaginary parts."""
    return torch.cat([matrix.real, matrix.imag]) if matrix.is_complex() else matrix


def circulant(variance):
    """Covariance ``B diag(V) B^H`` of a flattened real image whose spectrum has variances ``(H, W)``."""
    count = variance.numel()
    basis = torch.eye(count, dtype=torch.float64).reshape(count, *variance.shape)
    return ifft2(variance * fft2(basis)).real.reshape(count, count)


def relative(a, b):
    """Distance of two tensors over the length of the second."""
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))
