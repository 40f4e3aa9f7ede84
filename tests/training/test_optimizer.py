"""Muon against its definition by singular values in float64, and the guard that leaves a step out."""

import copy

import pytest
import torch
from torch import nn

from iasolve.training import Muon

RATE, DECAY = 1e-2, 0.1


def small_network():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.Conv2d(16, 24, 3),
        nn.Conv2d(24, 16, 2),
        nn.ConvTranspose2d(16, 8, 2),
        nn.Conv2d(8, 1, 1),
    )
    return net.to(memory_format=torch.channels_last)


def backward(net, seed):
    torch.manual_seed(seed)
    net.zero_grad()
    net(torch.randn(4, 1, 12, 12)).square().mean().backward()


@pytest.mark.parametrize("shape", [(16, 16), (24, 144), (144, 24), (8, 300)])
@pytest.mark.parametrize("decades", [0, 2])
def test_singular_values_of_a_change_come_near_one_and_vectors_stay(shape, decades):
    generator = torch.Generator().manual_seed(1)
    rank = min(shape)
    left, _ = torch.linalg.qr(torch.randn(shape[0], rank, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(shape[1], rank, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -decades, rank, dtype=torch.float64)
    net = nn.Conv2d(shape[1], shape[0], 1, bias=False)
    optimizer = Muon(net, torch.tensor(RATE), 0.0)
    before = net.weight.detach().double().clone()
    net.weight.grad = (left * values @ right.T).float().reshape(net.weight.shape)
    optimizer.step()
    found = (before - net.weight.detach().double()).reshape(shape) / RATE / (0.2 * max(shape) ** 0.5)
    inner = left.T @ found @ right
    # the smallest of a spectrum of two decades has not come all the way
    assert bool((inner.diagonal() > (0.6 if decades == 0 else 0.3)).all())
    assert bool((inner.diagonal() < 1.3).all())
    assert float((found - left * inner.diagonal() @ right.T).abs().max()) < 0.03


def test_the_first_step_is_that_of_the_definition():
    net = small_network()
    optimizer = Muon(net, torch.tensor(RATE), DECAY)
    kernel = net[1].weight
    kernel.grad = torch.randn(kernel.shape)
    before = kernel.detach().double().clone()
    left, _, right = torch.linalg.svd(kernel.grad.double().flatten(1), full_matrices=False)
    optimizer.step()
    moved = (before - kernel.detach().double()) / RATE - DECAY * before
    wanted = 0.2 * 144**0.5 * (left @ right).reshape(before.shape)
    assert float((moved * wanted).sum() / (moved.norm() * wanted.norm())) > 0.97
    assert float(moved.norm()) == pytest.approx(float(wanted.norm()), rel=0.2)


def test_all_else_moves_as_by_adamw():
    net, other = small_network(), small_network()
    adamw = torch.optim.AdamW(other.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=DECAY, fused=True)
    for one, optimizer in ((net, Muon(net, torch.tensor(RATE), DECAY)), (other, adamw)):
        backward(one, 1)
        optimizer.step()
    alike = [torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True)]
    # weight, bias of five layers: the kernels between many channels are the second, third and fourth's
    assert alike == [True, True, False, True, False, True, False, True, True, True]


def test_a_refused_step_changes_nothing():
    net = small_network()
    optimizer = Muon(net, torch.tensor(RATE), DECAY)
    for seed, refused in ((1, 0.0), (2, 1.0), (3, 0.0)):
        kept = copy.deepcopy([p.detach() for p in net.parameters()])
        moments = copy.deepcopy([dict(state) for state in optimizer.state.values()])
        backward(net, seed)
        if refused:
            net[1].weight.grad.fill_(float("nan"))
        optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(refused)
        optimizer.step()
        same = [torch.equal(a, b) for a, b in zip(kept, net.parameters(), strict=True)]
        assert all(same) if refused else not any(same)
        if refused:
            after = [dict(state) for state in optimizer.state.values()]
            assert all(torch.equal(a[key], b[key]) for a, b in zip(moments, after, strict=True) for key in a)
