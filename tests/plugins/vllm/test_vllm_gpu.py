"""One CUDA GPU for learner and engine: the engine sleeps, wakes, and holds what was learnt."""

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

LONG = tuple(5 + i % 80 for i in range(300))


@pytest.fixture(scope="module")
def served(tied_folder):
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from alignkit_hf import HfPolicy
    from alignkit_vllm import VllmRollout

    policy = HfPolicy(path=str(tied_folder), dtype="float32").build()
    backend = VllmRollout(gpu_memory_utilization=0.3, max_num_seqs=64, check_every=1).build()
    backend.start(policy)
    yield backend, policy
    backend.close()


def test_five_updates_in_a_row_reach_an_engine_that_slept_between_them(served):
    import torch

    from alignkit.protocols import Sampling

    backend, policy = served
    torch.manual_seed(0)
    greedy = Sampling(temperature=0.0, max_tokens=24)
    for _ in range(5):
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        policy.version += 1
        backend.sync(policy)  # checks columns and the greedy probe each time
        for _ in range(2):  # the second wakes the engine and takes the weights again
            ((found,),) = backend.generate([LONG], greedy)
            row = torch.tensor([[*LONG, *found.token_ids]], device="cuda")
            with torch.no_grad():
                scores = policy.model(row).logits[0, len(LONG) - 1 : -1].log_softmax(-1)
            want = scores.gather(1, row[0, len(LONG) :, None])[:, 0].cpu()
            assert (torch.tensor(found.logprobs) - want).abs().max() < 1e-3
            assert found.weight_version == policy.version
    assert max(backend.gaps) < 1e-3


def test_the_engine_gives_its_memory_back_while_the_policy_learns(served):
    import torch

    from alignkit.protocols import Sampling

    backend, policy = served
    backend.sync(policy)
    torch.cuda.empty_cache()
    awake, total = torch.cuda.mem_get_info()
    backend.generate([LONG], Sampling(max_tokens=4))
    torch.cuda.empty_cache()
    asleep, _ = torch.cuda.mem_get_info()
    assert asleep - awake > 0.2 * total
