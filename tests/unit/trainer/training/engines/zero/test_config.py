"""What of DeepSpeed a study may tune, and what reaches it."""

import json
from typing import Any

import pytest

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.spec import StudySpec, parse_spec
from tests.searching import document
from trainer.spec import ZeroConfig, ZeroSettings
from trainer.training.engines.zero.config import deepspeed_config


def problem(config: Any) -> Problem:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document(training={"zero": {"config": config}}))
    (only,) = caught.value.problems
    return only


@pytest.mark.parametrize(
    ("config", "pointer", "words"),
    [
        ({"nvme_path": "/etc"}, "", "may not have nvme_path: offload goes to host memory"),
        ({"wandb": {"enabled": True}}, "", "may not have wandb: no trial reports to files or services of its own"),
        ({"csv_monitor": {"output_path": "/"}}, "", "leave it out. It may have overlap_comm, contiguous_gradients"),
        ({"zero_optimization": {"stage": 2}}, "", "may not have zero_optimization: write its keys without it"),
        ({"gradient_clipping": 1}, "", "may not have gradient_clipping: set parameters.max_grad_norm"),
        ({"communication_data_type": "fp16"}, "", "it changes losses"),
        ({"overlap_com": True}, "/overlap_com", "Unknown key 'overlap_com'. Did you mean 'overlap_comm'?"),
        ({"some_path": "/etc"}, "/some_path", "Known here: contiguous_gradients, overlap_comm, pin_memory"),
        ({"reduce_bucket_size": 0}, "/reduce_bucket_size", "greater than or equal to 1"),
        ({"reduce_bucket_size": 10**11}, "/reduce_bucket_size", "less than or equal to 10000000000"),
        ({"stage3_param_persistence_threshold": 10**9}, "/stage3_param_persistence_threshold", "10000000"),
        ({"overlap_comm": {"path": "/"}}, "/overlap_comm", "boolean"),
        (3, "", "mapping of keys"),
    ],
)
def test_what_a_study_may_not_say(config: Any, pointer: str, words: str) -> None:
    refused = problem(config)
    assert refused.pointer == f"/training/zero/config{pointer}"
    assert words in refused.detail


def test_the_schema_lists_what_may_be_said() -> None:
    schema = StudySpec.model_json_schema()["$defs"]["ZeroConfig"]
    assert schema["properties"].keys() == ZeroConfig.model_fields.keys()
    assert schema["additionalProperties"] is False
    assert "path" not in json.dumps(schema)


def test_the_defaults_are_the_articles() -> None:
    config = deepspeed_config(ZeroSettings(), "bfloat16")
    zero = config["zero_optimization"]
    assert zero == {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "sub_group_size": 10**9,
        "stage3_prefetch_bucket_size": 5 * 10**8,
        "stage3_param_persistence_threshold": 10**6,
        "stage3_max_live_parameters": 10**9,
        "stage3_max_reuse_distance": 10**9,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    assert (config["bf16"], config["wall_clock_breakdown"]) == ({"enabled": True}, False)


def test_what_a_study_says_reaches_deepspeed() -> None:
    said = {"overlap_comm": False, "stage3_max_live_parameters": 5e7, "pin_memory": False, "sub_group_size": 10**6}
    spec = parse_spec(document(training={"zero": {"offload_parameters": True, "config": said}}))
    config = deepspeed_config(spec.training.zero, "float32", trained_elements=1000)
    zero = config["zero_optimization"]
    assert (zero["overlap_comm"], zero["sub_group_size"]) == (False, 10**6)
    assert zero["stage3_max_live_parameters"] == 5 * 10**7
    assert (zero["contiguous_gradients"], zero["stage3_max_reuse_distance"]) == (True, 10**9)
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": False}
    assert "offload_optimizer" not in zero
    assert "pin_memory" not in zero
    assert "bf16" not in config


@pytest.mark.parametrize(("said", "used"), [(None, 1000), (100, 100), (10**9, 1000)])
def test_the_gradient_buffer_is_no_larger_than_the_adapters(said: int | None, used: int) -> None:
    settings = ZeroSettings(config=ZeroConfig(reduce_bucket_size=said))
    assert deepspeed_config(settings, "float32", 1000)["zero_optimization"]["reduce_bucket_size"] == used


def test_deepspeed_knows_every_key() -> None:
    """It accepts unknown keys of its top level in silence, but none of its ZeRO table."""
    known = pytest.importorskip("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    settings = ZeroSettings(offload_optimizer=True, offload_parameters=True)
    zero = deepspeed_config(settings, "float32", 1000)["zero_optimization"]
    assert known(**zero).param_persistence_threshold == 10**6
