"""Fixtures shared by the worker's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import SaveModel, build
from transformers import PreTrainedModel


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny matrices gain nothing from a second thread, and lose a lot when its core is busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> SaveModel:
    """`save_model(family, **config overrides)` gives the transformers model and its folder, made once."""
    made: dict[str, tuple[PreTrainedModel, Path]] = {}

    def save(family: str, **overrides: object) -> tuple[PreTrainedModel, Path]:
        key = f"{family} {sorted(overrides.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            model = build(family, **overrides)
            model.save_pretrained(folder)
            made[key] = (model, folder)
        return made[key]

    return save
