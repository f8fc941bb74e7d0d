"""AdamW with 8-bit running means, by bitsandbytes (Dettmers et al. 2022, arXiv:2110.02861)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit as BitsAndBytesAdamW

_MAPS = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""State entries that are the same table for every weight: the 256 numbers a byte stands for."""


class AdamW8bit(BitsAndBytesAdamW):  # type: ignore[misc]
    """bitsandbytes' AdamW, its state a plain mapping from names to tensors of their own."""

    def state_dict(self) -> dict[str, Any]:
        """Return state and groups as torch's optimizers do, without the shared tables."""
        found = torch.optim.Optimizer.state_dict(self)
        found["state"] = {
            index: {name: value for name, value in state.items() if name not in _MAPS}
            for index, state in found["state"].items()
        }
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        super().load_state_dict(state_dict)
        for weight, state in self.state.items():
            if state["state1"].dtype == torch.uint8:
                for name, kind in _MAPS.items():
                    self.name2qmap[kind] = self.name2qmap[kind].to(weight.device)
                    state[name] = self.name2qmap[kind]
