"""Pairs of dialogues: what is split off, what is dropped and counted, what is held out."""

import gzip
import json

import pytest

from alignkit.errors import AlignkitError
from alignkit_data.hh import Hh


def dialogue(*said):
    return "".join(
        f"\n\n{'Assistant' if i % 2 else 'Human'}: {text}" for i, text in enumerate(said)
    )


def pair(asked, good, bad, also_asked=None):
    return {"chosen": dialogue(asked, good), "rejected": dialogue(also_asked or asked, bad)}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def test_the_instruction_is_split_off_and_the_source_kept(tmp_path):
    write(tmp_path / "kind/train.jsonl.gz", [pair("Is tea hot?", " Mostly.\n\nOr iced. ", "No")])
    write(tmp_path / "dry-train.jsonl", [pair("2 + 2?", "4", "5")])
    write(tmp_path / "kind/test.jsonl", [pair("other split", "a", "b")])
    dry, kind = Hh(path=tmp_path).build()
    assert (kind.question, kind.answer) == ("Is tea hot?", "Mostly.\n\nOr iced.")
    assert kind.extra == {
        "chosen": "Mostly.\n\nOr iced.", "rejected": "No", "source": "kind/train.jsonl.gz",
    }  # fmt: skip
    assert dry.extra["source"] == "dry-train.jsonl"
    assert dry.id != kind.id


def test_what_is_dropped_is_counted(tmp_path):
    long = dialogue("Hello", "Hi", "Is it late?", "No")
    twice = dialogue("Hello", "Hi") + "\n\nAssistant: And?"
    rows = [
        pair("q", "good", "bad"),
        {"chosen": long, "rejected": long},
        {"chosen": twice, "rejected": dialogue("Hello", "Hi")},
        pair("q", "", "bad"),
        pair("q", "good", "bad", also_asked="r"),
    ]
    subject = Hh(path=write(tmp_path / "d.jsonl", rows))
    assert len(subject.build()) == 1
    told = "1 of 1 of one turn; dropped: 2 multi-turn, 1 of two instructions, 1 without a response"
    assert subject.facts({})["pairs"] == told


@pytest.mark.parametrize(
    "text", ["Human: no break", "plain", "\n\nAssistant: I begin", "x\n\nHuman: a"]
)
def test_what_is_no_dialogue_is_refused_with_its_line(tmp_path, text):
    rows = [pair("q", "a", "b"), {"chosen": text, "rejected": dialogue("q", "b")}]
    with pytest.raises(AlignkitError, match=r"d.jsonl:2: column 'chosen' is no dialogue"):
        Hh(path=write(tmp_path / "d.jsonl", rows)).build()


def test_train_and_validation_share_nothing_and_make_the_whole(tmp_path):
    path = write(tmp_path / "d.jsonl", [pair(f"q{i}", "a", "b") for i in range(30)])

    def ids(part, **keys):
        return [e.id for e in Hh(path=path, part=part, validation=8, **keys).build()]

    held_out, train = ids("validation"), ids("train")
    assert (len(held_out), len(train)) == (8, 22)
    assert sorted(held_out + train) == sorted(ids("all"))
    assert held_out == ids("validation") != ids("validation", seed=1)
    (problem,) = Hh(path=path, part="train", validation=30).check({})
    assert problem == ("validation", "there are 30 pairs, so none would be left to train on")


def test_a_folder_without_the_split_says_what_was_looked_for(tmp_path):
    write(tmp_path / "train.jsonl", [pair("q", "a", "b")])
    ((key, message),) = Hh(path=tmp_path, split="test").check({})
    assert key == "path"
    assert message.endswith("the folder holds no test.jsonl.gz or NAME-test.jsonl.gz")


def test_the_real_harmless_test_file(shared_data):
    subject = Hh(path=shared_data / "hh_rlhf", split="test", part="validation")
    assert len(subject.build()) == 200
    everything = Hh(path=shared_data / "hh_rlhf", split="test")
    data = everything.build()
    assert everything.facts({})["pairs"] == (
        "658 of 658 of one turn; dropped: 1,651 multi-turn, 3 without a response"
    )
    assert {e.extra["source"] for e in data} == {"harmless-base-test.jsonl.gz"}
    assert not [e for e in data if "\n\nHuman:" in e.question + e.answer + e.extra["rejected"]]
