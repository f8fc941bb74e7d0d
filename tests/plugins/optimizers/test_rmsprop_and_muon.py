"""RMSprop and Muon: their updates by hand, and which weights Muon takes."""

import copy
import math

import pytest
import torch
from torch import nn

from alignkit.engine.learning.learner import Learner
from alignkit_optimizers import Muon, RmsProp


def stepped(params, weight, gradients):
    """Return the values of a weight after each of the given gradients."""
    weight = nn.Parameter(weight)
    optimizer, _ = params.build().start([weight], total_steps=len(gradients))
    seen = []
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
        seen.append(weight.detach().clone())
    return seen


def test_rmsprop_by_hand():
    """w 1; gradients 0.5, -0.25; lr 0.1, alpha 0.9, decay 0.2, no momentum."""
    one = torch.tensor([1.0], dtype=torch.float64)
    params = RmsProp(lr=0.1, alpha=0.9, weight_decay=0.2)
    seen = stepped(params, one, [0.5 * one, -0.25 * one])
    square = 0.1 * 0.25  # 0.025, root 0.158113883
    first = 0.98 - 0.1 * 0.5 / (math.sqrt(square) + 1e-8)
    square = 0.9 * square + 0.1 * 0.0625  # 0.02875
    second = 0.98 * first + 0.1 * 0.25 / (math.sqrt(square) + 1e-8)
    assert [float(x) for x in seen] == pytest.approx([first, second], abs=1e-12)
    # Decay added to the gradient, as torch does it: g = 0.7 and a step of 0.1 / sqrt(0.1).
    assert first != pytest.approx(1 - 0.1 / math.sqrt(0.1), abs=1e-3)


def test_rmsprop_adds_up_its_updates_with_momentum():
    one = torch.tensor([1.0], dtype=torch.float64)
    seen = stepped(RmsProp(lr=0.1, alpha=0.0, momentum=0.5), one, [one, one])
    # alpha 0: each update is g / |g| = 1; the sums are 1 and 1.5.
    assert [float(x) for x in seen] == pytest.approx([0.9, 0.75], abs=1e-6)


def test_muon_makes_the_update_of_a_matrix_orthogonal():
    """A rank-1-like gradient of very different singular values moves all directions alike."""
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(6, 6))
    gradient = u @ torch.diag(torch.tensor([100.0, 50, 10, 5, 2, 1])) @ v
    (after,) = stepped(Muon(lr=1.0), torch.zeros(6, 6), [gradient])
    sizes = torch.linalg.svdvals(after) / (0.2 * math.sqrt(6))  # the scale of arXiv:2502.16982
    assert 0.5 < sizes.min() <= sizes.max() < 1.3  # AdamW's sign-like step: 0.1 to 5
    assert torch.linalg.svdvals(gradient).max() / torch.linalg.svdvals(gradient).min() > 99
    assert float((after * gradient).sum()) < 0  # downhill


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), ()], ids=str)
def test_what_is_no_matrix_is_adamws(shape):
    (after,) = stepped(Muon(lr=0.1), torch.zeros(shape), [torch.full(shape, 3.0)])
    torch.testing.assert_close(after, torch.full(shape, -0.1), atol=1e-6, rtol=0)


class Net(nn.Module):
    """An embedding, a hidden matrix, and a head of its own."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9)

    def get_output_embeddings(self):
        return self.head


def test_embeddings_and_head_are_adamws():
    net, params = Net(), Muon().build()
    params.look(net)
    optimizer, _ = params.start(net.parameters(), total_steps=1)
    muon, adamw = optimizer.parts
    assert type(muon) is torch.optim.Muon
    assert [id(p) for g in muon.param_groups for p in g["params"]] == [id(net.hidden.weight)]
    others = [net.words.weight, net.hidden.bias, net.head.weight, net.head.bias]
    assert {id(p) for g in adamw.param_groups for p in g["params"]} == set(map(id, others))


def test_the_learner_shows_it_the_model(tiny_folder):
    from alignkit_hf import HfPolicy

    policy = HfPolicy(path=str(tiny_folder)).build()
    learner = Learner(policy, Muon().build(), token_budget=64, total_steps=1)
    muon = learner.optimizer.parts[0]
    held = {id(p) for group in muon.param_groups for p in group["params"]}
    ends = (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())
    outer = {id(part.weight) for part in ends}
    assert len(outer) == 2
    matrices = {id(p) for p in policy.model.parameters() if p.ndim == 2}
    assert held == matrices - outer


@pytest.mark.parametrize("kind", [RmsProp, Muon], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_resumes_exactly_with_embeddings_too(kind, momentum):
    def made():
        torch.manual_seed(1)
        net, params = Net(), kind(lr=0.01, momentum=momentum, weight_decay=0.1).build()
        if kind is Muon:
            params.look(net)
        return net, params.start(net.parameters(), total_steps=8)[0]

    def train(net, optimizer, steps):
        for i in steps:
            optimizer.zero_grad()
            net.head(net.hidden(net.words(torch.tensor([i % 9, 2])))).pow(2).sum().backward()
            optimizer.step()

    net, optimizer = made()
    train(net, optimizer, range(4))
    again, other = made()
    again.load_state_dict(net.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(net, optimizer, range(4, 8))
    train(again, other, range(4, 8))
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
