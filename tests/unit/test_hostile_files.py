"""Files that are made to do harm: refused before a worker is asked, in bounded time and memory."""

import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from hpo_service.cli.documents import apply_settings, parse_yaml, read_document
from hpo_service.core.errors import InvalidSpec
from hpo_service.services.data import preflight
from hpo_service.spec import parse_spec
from tests import hostile, serving

pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "files"
    serving.make_inputs(folder)
    return folder


def refusal(root: Path, **data: str) -> str:
    """Pointer and sentence of what is wrong with the study's files."""
    named = {"train": "train.jsonl", "eval": "eval.jsonl", **data}
    with pytest.raises(InvalidSpec) as error:
        preflight.inspect(parse_spec(serving.spec(data=named)), [root])
    problem = error.value.problems[0]
    assert (error.value.code, problem.detail[-1]) == ("invalid_spec", ".")
    return f"{problem.pointer}: {problem.detail}"


def weights(model: Path) -> Path:
    return model / "model.safetensors"


def pickle_under_another_name(model: Path) -> None:
    hostile.torch_file_that_makes(weights(model), model / "made")


def pickle_alone(model: Path) -> None:
    weights(model).unlink()
    hostile.torch_file_that_makes(model / "pytorch_model.bin", model / "made")


def bare_pickle(model: Path) -> None:
    weights(model).write_bytes(hostile.pickle_that_makes(model / "made"))


def folder_for_weights(model: Path) -> None:
    weights(model).unlink()
    weights(model).mkdir()


def code_beside(name: str) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / "modeling_evil.py").write_text(hostile.module_that_makes(model / "made"))
        (model / name).write_text('{"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}')

    return write


def link(name: str, target: str) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / name).unlink(missing_ok=True)
        (model / name).symlink_to(target)

    return write


def pipe(name: str) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)

    return write


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_text(content)


@pytest.mark.parametrize(
    ("harm", "hint"),
    [
        (pickle_alone, "other weights (pickle) are not read"),
        (pickle_under_another_name, "not in the format of safetensors"),
        (bare_pickle, "not in the format of safetensors"),
        (lambda model: weights(model).write_bytes(hostile.safetensors("{}", 99_000_000)), "no header of its length"),
        (lambda model: weights(model).write_bytes(hostile.safetensors("{}", 2**64 - 1)), "no header of its length"),
        (lambda model: weights(model).write_bytes(b""), "not in the format of safetensors"),
        (folder_for_weights, "no *.safetensors"),
        (code_beside("config.json"), "brings code of its own, which is never run"),
        (code_beside("tokenizer_config.json"), "brings code of its own, which is never run"),
        (link("config.json", "/etc/passwd"), "'config.json' in 'model' is a link out of the folders"),
        (link("tokenizer.json", "/proc/self/environ"), "is a link out of the folders"),
        (link("model.safetensors", "/dev/zero"), "is a link out of the folders"),
        (link("config.json", "config.json"), "is a link that leads nowhere"),
        (pipe("model.safetensors"), "neither a file nor a folder"),
        (pipe("tokenizer.json"), "neither a file nor a folder"),
        (text("config.json", hostile.nested("[", "]")), "not JSON that can be read"),
        (text("config.json", " " * 2 * MIB), "it is too large"),
        (text("config.json", '{"a": ' + "9" * 5000 + "}"), "not JSON that can be read"),
    ],
)
def test_models(root: Path, harm: Callable[[Path], object], hint: str) -> None:
    harm(root / "model")
    said = refusal(root)
    assert said.startswith("/model/path: ")
    assert hint in said
    assert "root:" not in said
    assert not (root / "model" / "made").exists()


@pytest.mark.parametrize(
    "named", ['"\\u0000"', '["\\ud800"]', "[[]]", "5", '{"a": 1}', "[null]", '["' + "x" * 9000 + '"]', '["<script>"]']
)
def test_an_architecture_is_a_name_or_nothing(root: Path, named: str) -> None:
    (root / "model" / "config.json").write_text(f'{{"architectures": {named}, "model_type": {named}}}')
    assert preflight.inspect(parse_spec(serving.spec()), [root]).traits.architecture == ""


@pytest.mark.parametrize(
    "shape",
    ["[1e999]", "[-5]", "[NaN]", '"x"', "5", "[" + "9" * 5000 + "]", str([10**18] * 100), str([2] * 17), "[[1]]"],
)
def test_sizes_that_cannot_be(root: Path, shape: str) -> None:
    header = f'{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 4]}}}}'
    weights(root / "model").write_bytes(hostile.safetensors(header))
    assert preflight.inspect(parse_spec(serving.spec()), [root]).traits.model_parameters is None


def test_a_deep_header(root: Path) -> None:
    weights(root / "model").write_bytes(hostile.safetensors('{"a": ' + hostile.nested("[", "]") + "}"))
    assert preflight.inspect(parse_spec(serving.spec()), [root]).traits.model_parameters is None


ROW = b'{"instruction": "a", "output": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.jsonl.gz", hostile.gzip_bomb(b"\0", 64 * MIB), "unpacks to more than 100 times its size"),
        ("a.jsonl.gz", hostile.gzip_bomb(ROW * 1000, 64 * MIB), "unpacks to more than 100 times its size"),
        ("a.jsonl.gz", gzip.compress(b"\n" * 2 * MIB), "more than 10000 lines in a row are blank"),
        ("a.jsonl", b"\n" * 2 * MIB, "more than 10000 lines in a row are blank"),
        ("a.jsonl.gz", hostile.damaged_gzip(), "cannot be read"),
        ("a.jsonl.gz", b"\x1f\x8b", "cannot be read"),
        ("a.zip", b"PK\x03\x04" + b"\0" * 100, "it is an archive"),
        ("a.jsonl", b"\0" * 8 * MIB, "longer than 4194304 bytes"),
        ("a.jsonl", b'{"instruction": ' + b"[" * 100_000, "line 1: not JSON that can be read"),
        ("a.jsonl", b'{"instruction": "a", "output": ' + b"9" * 5000 + b"}", "line 1: not JSON that can be read"),
        ("a.jsonl", b'{"instruction": "a", "output": "\\ud800"}', "half a surrogate pair"),
        ("a.jsonl", b'{"instruction": "a", "output": NaN}', "line 1"),
        ("a.jsonl", b"\xff\xfe{\0}\0", "not UTF-8"),
        ("a.parquet", b"PAR1" + b"\xff" * 1000 + b"PAR1", "cannot be read"),
        ("a.parquet", b"PAR1" + b"\0" * 8 + b"\xff\xff\xff\x7f" + b"PAR1", "cannot be read"),
    ],
)
def test_rows(root: Path, name: str, content: bytes, hint: str) -> None:
    (root / name).write_bytes(content)
    tracemalloc.start()
    said = refusal(root, train=name)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said.startswith("/data/train: ")
    assert hint in said
    assert peak_bytes < 48 * MIB


def test_parquet_of_other_types(root: Path) -> None:
    hostile.parquet(root / "a.parquet", [{"text": {"deep": [1]}}] * 3)
    assert "`text` must be a string" in refusal(root, train="a.parquet")
    hostile.parquet(root / "b.parquet", [{"messages": {"role": "x"}}] * 3)
    assert "`messages` must be a list" in refusal(root, train="b.parquet")


def test_parquet_in_which_what_repeats_takes_no_place(root: Path) -> None:
    hostile.parquet(root / "a.parquet", [{"text": "x" * 5 * MIB}] * 32)
    assert (root / "a.parquet").stat().st_size < MIB
    assert "longer than 4194304 bytes" in refusal(root, train="a.parquet")


@pytest.mark.parametrize(
    "written",
    [hostile.laughs(), hostile.merges(), "a: &a [*a]", "a: &a {b: *a}", hostile.nested("[", "]", 600),
     "? " * 500 + "x", hostile.TEXTS["yaml"], "!!python/object/apply:os.system ['touch pwned']", "a: 1e999",
     "a: " + "9" * 5000, "a: .inf", "a: !!binary aGk=", "a: 9999-99-99", "a: \x1b[2J", "%YAML 9.9\n---\na: 1",
     "a: " + "x" * 2 * MIB],
)  # fmt: skip
def test_yaml(tmp_path: Path, written: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(written)
    tracemalloc.start()
    with pytest.raises(InvalidSpec) as error:
        read_document(str(path))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 64 * MIB
    assert "\n" not in error.value.detail
    if len(written) < MIB:
        with pytest.raises(InvalidSpec):
            apply_settings({}, [f"a={written}"])


@pytest.mark.parametrize("written", hostile.TEXTS.values(), ids=list(hostile.TEXTS))
def test_yaml_gives_text_or_a_refusal(written: str) -> None:
    try:
        read = parse_yaml(written, "here")
    except InvalidSpec:
        return
    assert isinstance(read, str | dict | list)
