"""Each way of keeping AdamW's running means: training follows plain AdamW, memory is as said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignkit_optimizers import AdamW

WEIGHTS = 256 * 256


def problem():
    """Return a two-layer net and a loss that depends on all of it."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(256, 256), torch.nn.Tanh(), torch.nn.Linear(256, 256, bias=False)
    )
    x, y = torch.randn(64, 256), torch.randn(64, 256)
    return net, lambda: (net(x) - y).square().mean()


def started(net, implementation, **how):
    if implementation == "8bit":
        pytest.importorskip("bitsandbytes", reason="the extra 8bit is not installed")
    params = AdamW(implementation=implementation, lr=1e-3, weight_decay=0.01, **how)
    return params.build().start(net.parameters(), total_steps=100)


def train(loss, optimizer, schedule, steps):
    losses = []
    for _ in range(steps):
        value = loss()
        value.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize(
    ("implementation", "share"),
    [("foreach", 1e-5), ("offload", 1e-5), ("8bit", 0.02), ("kahan", 1e-5)],
)
def test_training_follows_fused_adamw(implementation, share):
    net, loss = problem()
    optimizer, schedule = started(net, implementation, schedule="cosine", warmup_steps=5)
    got = train(loss, optimizer, schedule, 60)
    net, loss = problem()
    want = train(loss, *started(net, "fused", schedule="cosine", warmup_steps=5), 60)
    assert want[-1] < 0.5 * want[0]
    assert got == pytest.approx(want, rel=share)
    if implementation == "8bit":
        assert got != want  # else it kept 32 bits


def test_offloaded_is_torchs_own_update_to_the_last_bit():
    net, loss = problem()
    train(loss, *started(net, "offload"), 10)
    other, loss = problem()
    plain = torch.optim.AdamW(
        other.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, foreach=False
    )
    train(loss, plain, torch.optim.lr_scheduler.LambdaLR(plain, lambda _: 1.0), 10)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def held(optimizer):
    """Return the bytes of the optimizer's tensors of more than one number."""
    return sum(
        v.nbytes
        for state in optimizer.state_dict()["state"].values()
        for v in state.values()
        if isinstance(v, torch.Tensor) and v.numel() > 1
    )


@pytest.mark.parametrize(
    ("implementation", "bytes_"),
    [
        # Two matrices and a bias of 256. float32: 2 numbers of 4 bytes each.
        ("fused", 2 * 4 * (2 * WEIGHTS + 256)),
        ("foreach", 2 * 4 * (2 * WEIGHTS + 256)),
        ("offload", 2 * 4 * (2 * WEIGHTS + 256)),
        # 2 bytes, and 2 scales of 4 bytes per block of 256; the bias in float32.
        ("8bit", 2 * (2 * WEIGHTS + 4 * 2 * WEIGHTS // 256) + 2 * 4 * 256),
    ],
)
def test_the_state_takes_the_memory_it_should(implementation, bytes_):
    net, loss = problem()
    optimizer, schedule = started(net, implementation)
    train(loss, optimizer, schedule, 1)
    assert held(optimizer) == bytes_


def through_files(state, folder):
    """Write the tensors as safetensors and the rest as JSON; read them back."""
    tensors, rest = {}, {"param_groups": state["param_groups"], "state": {}}
    for index, entries in state["state"].items():
        rest["state"][str(index)] = {}
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                rest["state"][str(index)][name] = value
    save_file(tensors, folder / "optimizer.safetensors")
    rest = json.loads(json.dumps(rest))
    found = {int(index): entries for index, entries in rest["state"].items()}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        found[int(index)][name] = tensor
    return {"param_groups": rest["param_groups"], "state": found}


@pytest.mark.parametrize("implementation", ["fused", "foreach", "offload", "8bit"])
def test_state_goes_through_files_and_back_exactly(implementation, tmp_path):
    net, loss = problem()
    optimizer, schedule = started(net, implementation, schedule="linear")
    train(loss, optimizer, schedule, 5)
    saved = through_files(optimizer.state_dict(), tmp_path)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    at = schedule.state_dict()
    want = train(loss, optimizer, schedule, 5)

    net, loss = problem()
    net.load_state_dict(weights)
    optimizer, schedule = started(net, implementation, schedule="linear")
    schedule.load_state_dict(at)
    optimizer.load_state_dict(saved)
    assert train(loss, optimizer, schedule, 5) == want
    # From a fresh optimizer the first update is a full step of lr, so it would show.


def test_eight_bits_without_the_package_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr("alignkit_optimizers.find_spec", lambda _: None)
    (message,) = AdamW(implementation="8bit").missing()
    assert "pip install 'alignkit[8bit]'" in message
    assert not list(AdamW().missing())
