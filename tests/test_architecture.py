"""What holds the house: import direction, one place for submodule names, plain names, a fast start, safe calls, conf/.

Each rule is a function from source text to violations, `file:line reason`. It is tried on a small offending snippet
first, so that it is known to be able to fail, and then on the whole tree.
"""

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from athlos.config.compose import compose_dict, group_options
from athlos.config.registry import GROUPS
from athlos.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "athlos"
CONF = ROOT / "conf"

LEVELS = (
    ("errors",),
    ("stages", "cache_contents"),
    ("config",),
    ("text", "lab", "data", "models", "retrieval"),
    ("hf",),
    ("generation", "judging"),
    ("parts",),
    ("objectives",),
    ("training",),
    ("evaluation",),
    ("methods",),
    ("runs",),
    ("report",),
    ("cli",),
)
"""Packages and top modules from left to right; a file imports from its own level and those before it."""
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names} | {"__init__": -1}

SITES_FILE = "models/sites.py"
SUBMODULES = (
    "self_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "qkv_proj",
    "q_norm",
    "k_norm",
    "mlp",
    "gate_proj",
    "up_proj",
    "down_proj",
    "gate_up_proj",
    "embed_tokens",
    "lm_head",
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "rotary_emb",
)
SUBMODULE = re.compile(rf"(?<!\w)(?:{'|'.join(SUBMODULES)})(?!\w)")

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}
EMPTY_VARIABLES = {"found", "one", "alike", "many", "given"}
HEAVY = ("torch", "transformers", "pytorch_lightning", "lightning", "numpy", "openai")
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "jsonpickle"}
SOURCE = re.compile(r"#\s(?:(?:paper|code|note)(?:[ ,:;(].*)?|ours: \S.*)$")


def package_files() -> dict[str, str]:
    """Path below src/athlos -> text of every Python file."""
    return {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def shown(violations: list[str]) -> str:
    return "\n" + "\n".join(violations)


# 1. Imports run one way


def imports(text: str, *, file: str) -> Iterator[tuple[int, str]]:
    """(line, dotted target below athlos) of every import of athlos, inside functions and for type checkers too."""
    package = ["athlos", *Path(file).parent.parts]
    pending: list[ast.AST] = [ast.parse(text)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{module}.{alias.name}" for alias in node.names]
        else:
            pending.extend(ast.iter_child_nodes(node))
            continue
        yield from ((node.lineno, target.partition(".")[2]) for target in targets if target.startswith("athlos."))


def owner(file: str) -> str:
    """The package or top module a file belongs to; `__init__`, which stands left of all, is that of athlos itself."""
    first = Path(file).parts[0].removesuffix(".py")
    return "cli" if first == "__main__" else first


def import_violations(text: str, *, file: str) -> Iterator[str]:
    me = owner(file)
    if me not in LEVEL_OF:
        yield f"{file}:1 '{me}' has no level; accepted: {', '.join(LEVEL_OF)}"
        return
    mine = LEVEL_OF[me]
    for line, target in imports(text, file=file):
        other, _, inner = target.partition(".")
        if other == "__version__":
            continue
        if other not in LEVEL_OF:
            yield f"{file}:{line} imports athlos.{target}, which has no level"
        elif LEVEL_OF[other] > mine:
            yield f"{file}:{line} {me} imports athlos.{other}, which stands to its right"
        elif file.startswith("methods/") and other == "methods" and Path(file).parts[1] != inner.partition(".")[0]:
            yield f"{file}:{line} a method imports another: athlos.{target}"


def package_cycle(files: dict[str, str]) -> list[str]:
    """Packages in a circle of imports, or nothing. Levels allow it only among neighbours of one level."""
    graph: dict[str, set[str]] = {}
    for file, text in files.items():
        others = {target.partition(".")[0] for _, target in imports(text, file=file)} - {owner(file)}
        graph.setdefault(owner(file), set()).update(others)
    return circle_in(graph)


def file_cycle(files: dict[str, str]) -> list[str]:
    """Files in a circle of imports, or nothing."""
    modules = {file.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", "."): file for file in files}
    graph = {}
    for file, text in files.items():
        graph[file] = {imported_file(target, modules=modules) for _, target in imports(text, file=file)} - {file, None}
    return circle_in(graph)


def imported_file(target: str, *, modules: dict[str, str]) -> str | None:
    """The file of a module, or of the module that a name stands in: `models.sites.backbone` is in models/sites.py."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return modules.get(target)


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data/source.py", "from athlos.training.module import MethodModule"),
        ("data/source.py", "import athlos.cli.main"),
        ("data/source.py", "from athlos import evaluation"),
        ("data/source.py", "from ..generation import engine"),
        ("data/source.py", "def late():\n    from athlos.training import module"),
        ("data/source.py", "if TYPE_CHECKING:\n    from athlos.training.module import MethodModule"),
        ("data/source.py", "from athlos.surprise import x"),
        ("errors.py", "from athlos.config import schema"),
        ("__init__.py", "from athlos.errors import AthlosError"),
        ("methods/lisa/module.py", "from athlos.methods.slam.selection import choose"),
        ("methods/lisa/module.py", "from athlos.methods import slam"),
        ("methods/lisa/module.py", "from ..slam import selection"),
        ("methods/lisa/suites.py", "from athlos.methods.slam import selection"),
        ("evaluation/suites/qa.py", "from athlos.methods.lisa.config import LisaConfig"),
        ("surprise/x.py", ""),
    ],
)
def test_a_wrong_import_is_seen(file: str, text: str) -> None:
    assert len(list(import_violations(text, file=file))) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data/source.py", "import json\nfrom athlos.errors import DataError\nfrom athlos.text import matching"),
        ("data/sources/squad.py", "from . import plain_text\nfrom ..records import Record\nfrom ... import errors"),
        ("methods/lisa/module.py", "from athlos.methods.lisa.surgery import LisaSurgery\nfrom .loss import f"),
        ("methods/lisa/suites.py", "from athlos.evaluation.suite import SuiteResult\nfrom .config import LisaConfig"),
        ("cli/main.py", "from athlos import __version__\nfrom athlos.methods.lisa import module"),
    ],
)
def test_a_right_import_passes(file: str, text: str) -> None:
    assert list(import_violations(text, file=file)) == []


def test_a_circle_of_neighbours_is_seen() -> None:
    files = {"data/a.py": "from athlos.models import b", "models/b.py": "def f():\n    import athlos.data.a"}
    assert set(package_cycle(files)) == {"data", "models"}
    assert package_cycle({"data/a.py": "from athlos.models import b\nfrom athlos.data import c"}) == []


@pytest.mark.parametrize(
    "files",
    [
        {"models/a.py": "from athlos.models.b import f", "models/b.py": "def f():\n    from athlos.models import a"},
        {"text/a.py": "from . import b", "text/b.py": "import athlos.text.c", "text/c.py": "from .a import f"},
        {"data/__init__.py": "from athlos.data.a import f", "data/a.py": "from athlos.data import VERSION"},
        {"__init__.py": "from athlos.errors import AthlosError", "errors.py": "from athlos import __version__"},
    ],
    ids=["late", "three", "package", "top"],
)
def test_a_circle_of_files_is_seen(files: dict[str, str]) -> None:
    assert set(file_cycle(files)) == set(files)
    del files[next(iter(files))]
    assert file_cycle(files) == []


def test_imports_run_one_way() -> None:
    files = package_files()
    assert len(files) > 20
    violations = [found for file, text in files.items() for found in import_violations(text, file=file)]
    assert not violations, shown(violations)


def test_no_packages_import_each_other_in_a_circle() -> None:
    circle = package_cycle(package_files())
    assert not circle, " imports ".join(circle)


def test_no_files_import_each_other_in_a_circle() -> None:
    files = package_files()
    circle = file_cycle(files)
    assert not circle, " is imported by ".join(circle)


# 2. Only models/sites.py knows submodule names


def submodule_violations(text: str, *, file: str) -> Iterator[str]:
    """Attributes and strings with a submodule name; strings that stand alone are documentation and pass."""
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found = SUBMODULE.fullmatch(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found = SUBMODULE.search(node.value)
        else:
            continue
        if found:
            yield f"{file}:{node.lineno} names the submodule '{found.group()}'; ask {SITES_FILE} for it"


@pytest.mark.parametrize(
    "text",
    [
        "layer.self_attn",
        "model.model.embed_tokens.weight",
        "layer.mlp(x)",
        "getattr(layer, 'q_proj')",
        "targets = ['gate_proj']",
        "name.endswith('lm_head.weight')",
        "key = f'model.layers.{i}.input_layernorm.weight'",
        "def f(name='model.layers.0.self_attn'): pass",
    ],
)
def test_a_submodule_name_is_seen(text: str) -> None:
    assert len(list(submodule_violations(text, file="x.py"))) == 1


def test_prose_and_other_names_pass() -> None:
    text = '"""The q_proj of a layer."""\nclass C:\n    x = 1\n    """Not lm_head."""\nmy_mlp = y.mlp_ratio\nz = "amlp"'
    assert list(submodule_violations(text, file="x.py")) == []


def test_only_sites_names_submodules() -> None:
    files = package_files()
    sites = files.pop(SITES_FILE, None)
    assert sites is not None
    assert list(submodule_violations(sites, file=SITES_FILE)), "the rule finds nothing where the names must be"
    violations = [found for file, text in files.items() for found in submodule_violations(text, file=file)]
    assert not violations, shown(violations)


# 3. Names say what is inside


def name_violations(text: str, *, file: str) -> Iterator[str]:
    """File, folder and function names whose last word says nothing."""
    for part in Path(file).with_suffix("").parts:
        if part.lower().strip("_").split("_")[-1] in EMPTY_NAMES:
            yield f"{file}:1 '{part}' does not say what is inside"
    for node in ast.walk(ast.parse(text)):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and node.name.lower().strip("_").split("_")[-1] in EMPTY_NAMES:
            yield f"{file}:{node.lineno} '{node.name}' does not say what it does"


def variable_violations(text: str, *, file: str) -> Iterator[str]:
    """Variables and parameters whose name says nothing of their value."""
    for node in ast.walk(ast.parse(text)):
        name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
        if name in EMPTY_VARIABLES:
            yield f"{file}:{node.lineno} '{name}' does not say what the value is"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("text/utils.py", ""),
        ("helpers/answers.py", ""),
        ("data/data_utils.py", ""),
        ("a.py", "def misc(): pass"),
        ("a.py", "class C:\n    async def _load_helper(self): pass"),
        ("a.py", "def f():\n    def common(): pass"),
    ],
)
def test_an_empty_name_is_seen(file: str, text: str) -> None:
    assert len(list(name_violations(text, file=file))) == 1


def test_a_telling_name_passes() -> None:
    assert list(name_violations("def common_prefix(): pass\ndef commons(): pass", file="text/miscount.py")) == []


def test_names_say_what_is_inside() -> None:
    paths = [path for folder in ("src", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 30
    violations = [
        found
        for path in paths
        for found in name_violations(path.read_text(encoding="utf-8"), file=str(path.relative_to(ROOT)))
    ]
    assert not violations, shown(violations)


@pytest.mark.parametrize("text", ["found = 1", "lambda one: 0", "[many for many in ()]", "def f(given): pass"])
def test_an_empty_variable_is_seen(text: str) -> None:
    assert list(variable_violations(text, file="a.py"))


def test_variables_say_what_their_value_is() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    assert paths
    violations = [
        violation
        for path in paths
        for violation in variable_violations(path.read_text(encoding="utf-8"), file=str(path.relative_to(PACKAGE)))
    ]
    assert not violations, shown(violations)


# 4. A fast start


def heavy_modules(code: str) -> list[str]:
    """Which of the heavy packages are loaded after `code` has run in a fresh interpreter."""
    report = f"\nimport sys\nprint('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_a_heavy_import_is_seen() -> None:
    assert heavy_modules("import numpy") == ["numpy"]


COMMANDS = ", ".join(f"athlos.cli.{path.stem}" for path in sorted((PACKAGE / "cli").glob("*.py")))


@pytest.mark.parametrize(
    "code",
    [
        "import athlos",
        "import athlos.config.compose; athlos.config.compose.registry()",
        "import athlos.cli.main",
        "from athlos.config.compose import run_config\n"
        "run_config(['engine=openai', 'engine.base_url=http://127.0.0.1:1/v1', 'engine.model=m', 'eval=qa', "
        "'data=lab', 'data.kinds=[fact]', 'prompt_style=bare', 'train.max_steps=0'])",
    ],
    ids=["athlos", "registry", "cli", "a config that asks a server"],
)
def test_help_and_checks_load_nothing_heavy(code: str) -> None:
    assert heavy_modules(code) == []


def test_no_command_loads_torch_before_it_is_needed() -> None:
    assert len(COMMANDS.split(", ")) > 8
    assert set(heavy_modules(f"import {COMMANDS}")) <= {"numpy"}


# 5. conf/

OPTIONS = [(group, option) for group in GROUPS for option in group_options(group)]


def test_every_folder_of_conf_is_a_group() -> None:
    assert {path.name for path in CONF.iterdir() if path.is_dir()} <= set(GROUPS)
    assert len(OPTIONS) == len(list(CONF.glob("*/**/*.yaml")))


@pytest.mark.slow  # a fraction of a second each, but there are hundreds
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_every_option_composes_alone(group: str, option: str) -> None:
    compose_dict([f"+suite@eval.suites.alone={option}" if group == "suite" else f"{group}={option}"])


def test_an_option_that_does_not_compose_is_seen() -> None:
    with pytest.raises(ConfigError, match="data: got 'shakespear'; did you mean 'shakespeare'"):
        compose_dict(["data=shakespear"])


def names_its_command(text: str, *, experiment: str) -> bool:
    """Whether the comments at the top of an experiment give the command that runs it."""
    top = re.match(r"(?:#.*\n|\s*\n)*", text)
    command = rf"^#\s*(?:\$\s*)?athlos run\b.*\bexperiment={re.escape(experiment)}(?![\w/])"
    return top is not None and re.search(command, top.group(), re.M) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# @package _global_\n# athlos run experiment=tiny\nstudy: tiny\n", True),
        ("# athlos run -m experiment=tiny seed=1,2\n", True),
        ("# @package _global_\nstudy: tiny\n# athlos run experiment=tiny\n", False),
        ("# athlos run experiment=tiny_other\nstudy: tiny\n", False),
        ("# run it with experiment=tiny\nstudy: tiny\n", False),
    ],
)
def test_the_command_of_an_experiment_is_found(text: str, expected: bool) -> None:
    assert names_its_command(text, experiment="tiny") is expected


def test_every_experiment_gives_its_command() -> None:
    options = group_options("experiment")
    assert options
    lacking = [
        option
        for option in options
        if not names_its_command(
            (CONF / "experiment" / f"{option}.yaml").read_text(encoding="utf-8"), experiment=option
        )
    ]
    assert not lacking


def unsourced_values(text: str) -> Iterator[str]:
    """`line key` of the values of a method's YAML whose line does not end in the value's source."""
    lines = text.splitlines()
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    pending = [("", document)] if document else []
    while pending:
        name, node = pending.pop()
        if isinstance(node, yaml.MappingNode) and not node.flow_style:
            pending += [(f"{name}{key.value}.", value) for key, value in node.value if name or key.value != "defaults"]
        elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
            pending += [(f"{name}{index}.", value) for index, value in enumerate(node.value)]
        else:
            # A block scalar carries its comment behind the `|`, a flow list over several lines at its end.
            mark = node.end_mark if isinstance(node, yaml.CollectionNode) else node.start_mark
            if not SOURCE.search(lines[mark.line]):
                yield f"{mark.line + 1} {name.rstrip('.')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rank: 4", ["1 rank"]),
        ("rank: 4  # guess", ["1 rank"]),
        ("rank: 4  # ours:", ["1 rank"]),
        ("rank: 4  # papers", ["1 rank"]),
        ("name: '# paper'", ["1 name"]),
        ("loss:\n  weight: 1.0\n  kind: dpo  # code", ["2 loss.weight"]),
        ("layers:\n  - 1  # paper\n  - 2", ["3 layers.1"]),
        ("layers: [1,\n  2]", ["2 layers"]),
        ("prompt: |\n  Be kind.  # paper\n", ["1 prompt"]),
        ("empty:", ["1 empty"]),
    ],
)
def test_a_value_without_a_source_is_seen(text: str, expected: list[str]) -> None:
    assert list(unsourced_values(text)) == expected


def test_a_value_with_a_source_passes() -> None:
    text = (
        "# A method.\ndefaults: [/schema/method/x@_here_, _self_]\n"
        "rank: 4  # paper\nalpha: 8  # paper, section 3\nlr: 1e-3  # code\nsteps: 9  # note\n"
        "k: 2  # ours: fits a laptop\n"
        "loss:\n  weight: 1.0  # code\nlayers: [1,\n  2]  # paper\nprompt: |  # code\n  Be kind.\n"
    )
    assert list(unsourced_values(text)) == []
    assert list(unsourced_values("# Nothing but a comment.\n")) == []


def test_every_value_of_a_method_has_a_source() -> None:
    files = sorted((CONF / "method").rglob("*.yaml"))
    assert files
    violations = [
        f"{path.relative_to(ROOT)}:{found}" for path in files for found in unsourced_values(path.read_text("utf-8"))
    ]
    assert not violations, shown(violations)


# 6. Nothing that runs foreign code


def unsafe_calls(text: str, *, file: str) -> Iterator[str]:
    """eval, exec, pickle, trust_remote_code; torch.load and numpy.load unless told to read plain data only."""
    tree = ast.parse(text)
    aliases = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        for reason in [*_unsafe_import(node), *_unsafe_trust(node), *_unsafe_call(node, aliases=aliases)]:
            yield f"{file}:{node.lineno} {reason}"


def _unsafe_import(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {alias.name}" for alias in node.names if alias.name.partition(".")[0] in PICKLES)
    if isinstance(node, ast.ImportFrom) and node.module:
        names = {alias.name for alias in node.names}
        if node.module.partition(".")[0] in PICKLES:
            yield f"imports {node.module}"
        if node.module in ("torch", "numpy", "torch.serialization") and "load" in names:
            yield f"imports {node.module}.load by a bare name"
        if node.module == "builtins" and names & {"eval", "exec"}:
            yield "imports eval or exec"


def _unsafe_trust(node: ast.AST) -> Iterator[str]:
    """`trust_remote_code` as a keyword or a key with any value but a literal False."""
    pairs: list[tuple[ast.AST | None, ast.AST]] = []
    if isinstance(node, ast.Call):
        pairs = [(ast.Constant(keyword.arg), keyword.value) for keyword in node.keywords]
    elif isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values, strict=True))
    for key, value in pairs:
        if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _is_literal(value, False):
            yield "trusts remote code"


def _unsafe_call(node: ast.AST, *, aliases: dict[str, str]) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    head, _, rest = ast.unparse(node.func).partition(".")
    name = f"{aliases.get(head, head)}.{rest}" if rest else head
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in ("eval", "exec", "builtins.eval", "builtins.exec"):
        yield f"calls {name}"
    if name in ("torch.load", "torch.serialization.load") and not _is_literal(keywords.get("weights_only"), True):
        yield "calls torch.load without weights_only=True"
    if name == "numpy.load" and not _is_literal(keywords.get("allow_pickle"), False):
        yield "calls numpy.load without allow_pickle=False"


def _is_literal(node: ast.AST | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "exec(code)",
        "import builtins\nbuiltins.eval('1')",
        "from builtins import exec as run",
        "import pickle",
        "def f():\n    from cloudpickle import loads",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch as t\nt.load(path, weights_only=flag)",
        "from torch import load",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "options = {'trust_remote_code': True}",
    ],
)
def test_an_unsafe_call_is_seen(text: str) -> None:
    assert len(list(unsafe_calls(text, file="x.py"))) == 1


def test_safe_calls_pass() -> None:
    text = (
        "import torch, json, numpy as np\nmodel.eval()\njson.load(f)\ntorch.load(p, weights_only=True)\n"
        "np.load(p, allow_pickle=False)\nAutoModel.from_pretrained(x, trust_remote_code=False)\nword = 'eval(x)'\n"
        "options = {**more, 'a': True}\nf(**options)\n"
    )
    assert list(unsafe_calls(text, file="x.py")) == []


def test_nothing_runs_foreign_code() -> None:
    files = package_files()
    violations = [found for file, text in files.items() for found in unsafe_calls(text, file=file)]
    assert not violations, shown(violations)
    trusting = [
        str(path.relative_to(ROOT))
        for path in sorted(CONF.rglob("*.yaml"))
        if re.search(r"trust_remote_code:\s*(?!false\b)\S", path.read_text(encoding="utf-8"))
    ]
    assert not trusting
