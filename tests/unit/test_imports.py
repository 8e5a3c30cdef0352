"""What only reads never pays for what trains, and imports run in one direction (DESIGN, Folders)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timetrial_scoring

import timetrial

HEAVY = ("jax", "scipy", "matplotlib", "tensorflow_datasets", "grain", "orbax", "flax", "optax")
PACKAGE, SCORING = Path(timetrial.__file__).parent, Path(timetrial_scoring.__file__).parent

STDLIB_ONLY = {"target", "ruleset", "record", "chain", "fields", "fingerprint", "seeds", "errors", "instrument_log"}
"""What timetrial_scoring may import of timetrial."""
LAYERS = [
    STDLIB_ONLY | {"registry"},
    {"splits", "batches", "data", "workload", "submission", "tuning"},
    {"clock", "stream", "evaluate", "checkpoint", "devices", "lock"},
    {"trainer", "judge"},
    {"trial"},
    {"campaign", "launchers", "check"},
    {"commands"},
    {"cli"},
]
"""A module imports its own layer and those before it. Modules that are named nowhere are free."""


@pytest.mark.parametrize(
    "what",
    ["import timetrial", "import timetrial.cli", "import timetrial_scoring", "import timetrial.workloads"]
    + [f"import timetrial.{name}" for name in sorted(STDLIB_ONLY | {"registry", "tuning"})]
    + ["from timetrial.launchers.shares import shares; shares(1)"]
    + [f"from timetrial.cli import main; main({argv!r})" for argv in (["list"], [])],
)
def test_what_only_reads_leaves_the_heavy_libraries_out(what: str):
    code = f"{what}; import sys; print(*(set({HEAVY!r}) & set(sys.modules)), sep=',', file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == ""


def imports(path: Path, *, at_call: bool) -> Iterator[str]:
    """The modules that a file imports: when it is imported itself, and with `at_call` inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree)) if at_call else list(_outside_functions(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            if node.module == "timetrial":
                yield from (f"timetrial.{alias.name}" for alias in node.names)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _outside_functions(child)


def layer(module: str) -> int | None:
    """The layer of a dotted module of timetrial; None for one that the list does not name."""
    name = module.split(".")[1]
    return next((i for i, names in enumerate(LAYERS) if name in names), None)


def modules(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("name", sorted(STDLIB_ONLY))
def test_the_modules_that_scoring_builds_on_need_the_standard_library_alone(name: str):
    allowed = {f"timetrial.{other}" for other in STDLIB_ONLY} | {"timetrial"}
    for module in imports(PACKAGE / f"{name}.py", at_call=True):
        assert module in allowed or module.split(".")[0] in sys.stdlib_module_names


def test_scoring_imports_of_timetrial_only_what_needs_the_standard_library_alone():
    for path in modules(SCORING):
        for module in imports(path, at_call=True):
            assert module.split(".")[0] not in ("jax", "flax", "optax"), path
            assert not module.startswith("timetrial.") or module.split(".")[1] in STDLIB_ONLY, f"{path}: {module}"


def test_imports_within_timetrial_run_one_way():
    for path in modules(PACKAGE):
        own = layer("timetrial." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))
        for module in imports(path, at_call=False):
            if own is not None and module.startswith("timetrial.") and (other := layer(module)) is not None:
                assert other <= own, f"{path.name} imports {module}, which builds on it"
