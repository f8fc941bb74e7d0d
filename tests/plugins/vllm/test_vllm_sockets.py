"""Weights over a socket."""

import threading
import time

import pytest
import torch

from alignkit import AlignkitError
from alignkit_vllm.weights import named_weights
from alignkit_vllm.weights.sockets import Sender, receive


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_bit_for_bit_at_every_worker(policy, dtype):
    sender = Sender(2, "127.0.0.1", timeout=20)
    got = [{}, {}]

    def worker(into):
        into.update(receive("127.0.0.1", sender.port, sender.token, 20))

    threads = [threading.Thread(target=worker, args=(into,)) for into in got]
    for thread in threads:
        thread.start()
    sent = sender.send(named_weights(policy, dtype))
    for thread in threads:
        thread.join(20)
    sender.close()
    want = dict(named_weights(policy, dtype))
    assert sent == sum(w.nbytes for w in want.values())
    for found in got:
        assert list(found) == list(want)
        for name, value in want.items():
            assert found[name].dtype == dtype
            assert torch.equal(found[name], value)


def test_who_does_not_know_the_token_gets_nothing(policy):
    sender = Sender(1, "127.0.0.1", timeout=20)
    errors = []

    def stranger():
        try:
            list(receive("127.0.0.1", sender.port, "0" * 32, 20))
        except (AlignkitError, OSError) as error:
            errors.append(error)

    def friend():
        list(receive("127.0.0.1", sender.port, sender.token, 20))

    first = threading.Thread(target=stranger)
    first.start()
    time.sleep(0.2)
    second = threading.Thread(target=friend)
    second.start()
    sender.send(named_weights(policy, torch.float32))
    first.join(20)
    second.join(20)
    sender.close()
    assert len(errors) == 1


def test_tied_weights_are_sent_once():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    class Tied:
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=32,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=True,
            )
        )

    names = [name for name, _ in named_weights(Tied(), torch.float32)]
    assert "lm_head.weight" not in names
    assert names.count("model.embed_tokens.weight") == 1
