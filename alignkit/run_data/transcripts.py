"""Transcripts of episodes as saved in files of responses, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

CUTS = {
    "turn": "cut at the limit of a turn",
    "episode": "cut at the limit of the episode's tokens",
    "turns": "out of turns",
}
"""What ended an episode before its time, by the value of ``cut``."""


@dataclass(frozen=True, slots=True)
class Said:
    """What was said at once."""

    role: Literal["policy", "environment"]
    text: str
    note: str
    """Turn, sampled tokens and the turn's reward; empty for the environment."""


def transcript(row: Mapping[str, Any]) -> list[Said]:
    """Return the turns of a saved response, each followed by what the environment answered.

    Empty for a response without an environment. A field of another type than a run writes counts
    as absent.
    """
    turns = row.get("turns")
    there = [t for t in turns if isinstance(t, Mapping)] if isinstance(turns, list) else []
    return [said for i, turn in enumerate(there) for said in _turn(i + 1, turn)]


def _turn(number: int, turn: Mapping[str, Any]) -> Iterator[Said]:
    notes = [f"turn {number}"]
    if isinstance(turn.get("tokens"), int):
        notes.append(f"{turn['tokens']} tokens")
    if isinstance(turn.get("reward"), int | float) and turn["reward"]:
        notes.append(f"reward {turn['reward']:g}")
    yield Said("policy", str(turn.get("response", "")), ", ".join(notes))
    if turn.get("observation"):
        yield Said("environment", str(turn["observation"]), "")


def turn_count(row: Mapping[str, Any]) -> int:
    """Return the number of the policy's turns, 1 for a response without an environment."""
    return sum(said.role == "policy" for said in transcript(row)) or 1


def as_text(row: Mapping[str, Any]) -> str:
    """Return the transcript as text: a paragraph for each turn and observation, the reward last.

    >>> print(as_text({"turns": [{"response": "2*3", "tokens": 3, "observation": "6"},
    ...                          {"response": "six", "tokens": 1}], "reward": 1.0}))
    policy (turn 1, 3 tokens): 2*3
    environment: 6
    policy (turn 2, 1 tokens): six
    reward: 1
    """
    lines = [f"{s.role}{f' ({s.note})' if s.note else ''}: {s.text}" for s in transcript(row)]
    if isinstance(row.get("cut"), str) and row["cut"] in CUTS:
        lines.append(CUTS[row["cut"]])
    if isinstance(row.get("reward"), int | float):
        lines.append(f"reward: {row['reward']:g}")
    return "\n".join(lines)
