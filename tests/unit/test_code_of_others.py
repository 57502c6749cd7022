"""Nothing of ours runs code that comes in files, texts or addresses: the program is read, not run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: what users reach; benchmarks and examples run on files of their own making
SERVED = ("hpo_service", "trainer", "migrations", "search_spaces")
PROGRAM = (*SERVED, "benchmarks", "examples")
MODULES = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code"})
BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
CALLS = frozenset(
    {"os.system", "os.popen", "torch.hub.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
    | {"shutil.unpack_archive", "tempfile.mktemp", "ssl._create_unverified_context", "jinja2.Template"}
)
METHODS = frozenset({"extractall", "loads_pickle", "read_pickle", "to_pickle"})
#: keyword: the only value that it may have
KEYWORDS = {"shell": False, "trust_remote_code": False, "allow_pickle": False, "weights_only": True, "verify": True}
#: call: keywords that it must have
REQUIRED = {
    "torch.load": {"weights_only"},
    "AutoTokenizer.from_pretrained": {"local_files_only", "trust_remote_code"},
    "AutoConfig.from_pretrained": {"local_files_only", "trust_remote_code"},
    "AutoModelForCausalLM.from_pretrained": {"local_files_only", "trust_remote_code", "use_safetensors"},
    "PreTrainedTokenizerFast.from_pretrained": {"local_files_only"},
}


def findings(source: str, required: dict[str, set[str]]) -> Iterator[str]:
    """Line and what is wrong with it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            yield from (f"{node.lineno}: import of {name}" for name in named if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {wrong}" for wrong in wrong_in_call(node, required))


def wrong_in_call(call: ast.Call, required: dict[str, set[str]]) -> Iterator[str]:
    name = ast.unparse(call.func)
    last_two = ".".join(name.split(".")[-2:])
    if name in BUILTINS or name in CALLS or name.split(".")[-1] in METHODS:
        yield name
    if name.split(".")[-1] == "YAML" and any(
        not isinstance(value, ast.Constant) or value.value not in ("safe", "rt")
        for value in [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "typ")]
    ):
        yield "YAML of a type that makes objects"
    for keyword in call.keywords:
        allowed = KEYWORDS.get(keyword.arg or "")
        if allowed is not None and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is allowed):
            yield f"{name}({keyword.arg}={ast.unparse(keyword.value)})"
    if missing := required.get(last_two, set()) - {keyword.arg for keyword in call.keywords}:
        yield f"{name} without {', '.join(sorted(missing))}"


@pytest.mark.parametrize("folder", PROGRAM)
def test_no_code_of_others_is_run(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    required = REQUIRED if folder in SERVED else {"torch.load": REQUIRED["torch.load"]}
    assert [
        f"{path.relative_to(ROOT)}:{wrong}" for path in paths for wrong in findings(path.read_text(), required)
    ] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import os.path, marshal",
        "eval('1')",
        "exec(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=quick)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "YAML(typ='unsafe')",
        "YAML('unsafe')",
        "ruamel.yaml.YAML(typ=kind)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "httpx.get(url, verify=False)",
        "AutoTokenizer.from_pretrained(path, local_files_only=True)",
        "transformers.AutoModelForCausalLM.from_pretrained(path, local_files_only=True, trust_remote_code=False)",
        "AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=ask)",
    ],
)
def test_what_would_be_found(line: str) -> None:
    assert len(list(findings(line, REQUIRED))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "YAML()",
        "YAML(typ='safe', pure=True)",
        "model.eval()",
        "re.compile('a')",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "subprocess.run(['ls'])",
    ],
)
def test_what_is_fine(line: str) -> None:
    assert list(findings(line, REQUIRED)) == []
