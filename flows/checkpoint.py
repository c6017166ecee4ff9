"""The state of a training on disk: tensors as safetensors, all else as JSON in the same file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from storage.durable import write_durably


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training knows besides its tensors."""

    recipe: Mapping[str, Any]
    """What the training's result depends on; a resumed one must be asked for the same."""
    curve: tuple[tuple[int, float, float], ...] = ()
    """Step, mean loss since the one before, and score on the development set, at each evaluation."""

    @property
    def best_score(self) -> float:
        """Highest score so far."""
        return max((score for _, _, score in self.curve), default=-1.0)

    @property
    def n_since_best(self) -> int:
        """Evaluations since the highest score."""
        scores = [score for _, _, score in self.curve]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def write_checkpoint(path: Path, state: Mapping[str, Any], progress: Progress) -> None:
    """Write the state of a training whole or not at all; the file before it stands until then."""
    tensors: dict[str, Tensor] = {}
    rest = _take_tensors(state, "", tensors)
    notes = {"recipe": dict(progress.recipe), "curve": progress.curve, "rest": rest}
    write_durably(path, save(tensors, {"training": json.dumps(notes)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Progress]:
    """Read what `write_checkpoint` wrote."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    notes = json.loads(header["__metadata__"]["training"])
    state = _put_tensors(notes["rest"], load(data))
    curve = tuple((int(step), float(loss), float(score)) for step, loss, score in notes["curve"])
    return state, Progress(notes["recipe"], curve)


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401  (any state)
    """Move tensors out of a nested state; what stays is JSON that names them where they were."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": [[key, _take_tensors(one, f"{name}/{key}", tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_tensors(one, f"{name}/{index}", tensors) for index, one in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401  (any state)
    """Undo `_take_tensors`."""
    if isinstance(value, dict) and "tensor" in value:
        return tensors[value["tensor"]]
    if isinstance(value, dict):
        return {key: _put_tensors(one, tensors) for key, one in value["map"]}
    if isinstance(value, list):
        return [_put_tensors(one, tensors) for one in value]
    return value
