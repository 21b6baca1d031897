"""How a network is trained: what may be asked for, and what is refused with its name and what it may be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from refimpl.formats.errors import DataError
from refimpl.training.config import TrainingConfig
from refimpl.training.optimisers import UPDATE_RULES

WHOLE = ("batch_size", "seed", "max_epochs", "max_steps", "patience", "report_every")
REAL = ("learning_rate", "target_loss", "gradient_norm", "change", "max_loss")
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"update": "sgd"}, ["update", *UPDATE_RULES, "'sgd'"]),
    ({"schedule": "linear"}, ["schedule", "constant", "step", "exponential", "cosine", "'linear'"]),
    ({"dtype": "float16"}, ["dtype", "float64", "float32", "'float16'"]),
    ({"scheme": "xavier"}, ["scheme", "glorot_uniform", "'xavier'"]),
    *[({name: 2.5}, [name, "integer", "2.5"]) for name in WHOLE],
    *[({name: True}, [name, "integer", "True"]) for name in WHOLE],
    *[({name: -1}, [name, "≥", "-1"]) for name in WHOLE],
    *[({name: 0}, [name, "≥ 1", "0"]) for name in ("batch_size", "patience", "report_every")],
    *[({name: math.inf}, [name, "finite number", "inf"]) for name in REAL],
    *[({name: "1"}, [name, "number", "'1'"]) for name in REAL],
    ({"learning_rate": math.nan}, ["learning_rate", "finite number", "nan"]),
    ({"learning_rate": -0.1}, ["learning_rate", "≥ 0", "-0.1"]),
    ({"max_epochs": None}, ["max_epochs", "integer", "None"]),
    ({"update_parameters": {"momentum": 0.9}}, ["update", "gradient_descent has no parameter 'momentum'", "none"]),
    ({"update": "adam", "update_parameters": {"rho": 0.9}}, ["adam has no parameter 'rho'", "beta1, beta2, epsilon"]),
    ({"schedule": "step", "schedule_parameters": {"size": 3.0}}, ["step has no parameter 'size'", "every, factor"]),
    ({"update": "momentum", "update_parameters": {"momentum": 1.0}}, ["momentum", "< 1", "1.0"]),
    ({"update": "adam", "update_parameters": {"beta2": -0.1}}, ["beta2", "≥ 0", "-0.1"]),
    ({"update": "adam", "update_parameters": 3}, ["update_parameters", "3"]),
    ({"rate": 1}, ["rate"]),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_configuration_is_refused_with_the_name_and_what_it_may_be(
    options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        TrainingConfig(**options)
    assert str(caught.value).isprintable()
    assert [word for word in words if word not in str(caught.value)] == []


def test_more_arguments_than_there_are_fields_are_refused() -> None:
    fields = tuple(TrainingConfig().to_dict().values())
    assert TrainingConfig(*fields) == TrainingConfig()
    with pytest.raises((DataError, TypeError)):
        TrainingConfig(*fields, 1)  # type: ignore[call-arg]


def test_a_configuration_reads_back_with_the_defaults_of_its_rule_and_schedule() -> None:
    config = TrainingConfig(
        update="adam", update_parameters={"beta1": 0.5}, schedule="cosine", batch_size=3, patience=2, target_loss=-1
    )
    assert config.update_parameters == {"beta1": 0.5, "beta2": 0.999, "epsilon": 1e-8}
    assert config.schedule_parameters == {"steps": 1000.0, "final": 0.0}
    assert TrainingConfig(**json.loads(json.dumps(config.to_dict()))) == config
