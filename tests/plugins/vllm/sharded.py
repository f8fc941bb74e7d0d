"""One rank of a trainer whose policy is cut over two processes (FSDP2 on gloo); not a test itself.

    python sharded.py FOLDER STORE RANK OUT [URL]

Both ranks scale every weight by 1.25, shard by shard. Rank 0 then hands the weights on: to the
vLLM server at URL, or through a socket to itself, and writes what arrived to OUT.
"""

import sys
import threading
from pathlib import Path

SCALE = 1.25


def main(folder, store, rank, out, url=None):
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    from alignkit_hf import HfPolicy
    from alignkit_vllm.weights import named_weights

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
    policy = HfPolicy(path=folder, device="cpu").build()
    for layer in policy.model.model.layers:
        fully_shard(layer)
    fully_shard(policy.model)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(SCALE)
    held = sum(p.to_local().numel() for p in policy.model.parameters())
    assert held < 0.6 * sum(p.numel() for p in policy.model.parameters()), "is not sharded"
    if rank == "1":
        for _ in named_weights(policy, torch.float32):  # takes part in gathering
            pass
    elif url:
        to_server(policy, url)
        Path(out).touch()
    else:
        torch.save(through_a_socket(policy), out)
    dist.barrier()
    dist.destroy_process_group()


def through_a_socket(policy):
    import torch

    from alignkit_vllm.weights import named_weights
    from alignkit_vllm.weights.sockets import Sender, receive

    sender, found = Sender(1, "127.0.0.1", 120), {}
    worker = threading.Thread(
        target=lambda: found.update(receive("127.0.0.1", sender.port, sender.token, 120))
    )
    worker.start()
    with torch.no_grad():
        sender.send(named_weights(policy, torch.float32))
    worker.join(120)
    sender.close()
    return found


def to_server(policy, url):
    import torch

    from alignkit_vllm.engines.server import ServerEngine

    engine = ServerEngine(
        url=url,
        visible=None,
        options={"dtype": "float32"},
        timeouts=(120, 120, 120),
        max_restarts=0,
    )
    engine.start(Path(), policy)
    engine.load(policy, torch.float32, "sharded")


if __name__ == "__main__":
    main(*sys.argv[1:])
