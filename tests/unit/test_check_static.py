"""`timetrial check` reads a submission's files: each rule names what breaks it and its line, and passes the like."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from algoperf_toys import JIT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_trials import SGD, write

from timetrial.check.literals import NUMBERS
from timetrial.check.report import Verdict, report_of
from timetrial.check.selection import LARGEST_ORDINARY
from timetrial.check.static import RULES, check_static
from timetrial.cli import main
from timetrial.loading import Source, find_source
from timetrial.registry import submission_folders

MANIFEST = 'authors = ["A. U. Thor"]\nlicense = "MIT"\ndescription = "a test"\n'
ORDINARY = """
import dataclasses, functools, itertools, math
import jax
import jax.numpy as jnp
import numpy as np
import optax
from collections.abc import Mapping
from typing import Any, NamedTuple
from jax import lax
from jax.experimental import sparse
from optax.contrib import muon
from timetrial import Choice, LogUniform, Submission, TrainState, from_optax
"""


def verdicts(folder: Path, text: str, files: Mapping[str, str | bytes] | None = None) -> list[Verdict]:
    """What the static rules say of a submission with this text and these files."""
    source = write(folder, text)
    for name, content in {"submission.toml": MANIFEST, "README.md": "A test.", **(files or {})}.items():
        path = source.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(check_static(source))


def found(said: list[Verdict]) -> dict[str, list[str | None]]:
    """The places that each rule complains of."""
    rules = dict.fromkeys(verdict.rule for verdict in said if verdict.status != "pass")
    return {rule: [v.where for v in said if v.rule == rule] for rule in rules}


BREAKS = {
    "python": ["def f(:", "x = " + "-" * 80 + "1" + " + 1" * 2500],
    "imports": [
        "import os",
        "import numpy, requests",
        "from time import perf_counter",
        "import subprocess as functools",
        "from threading import Thread",
        "import flax.training.checkpoints",
        "import timetrial.registry",
        "from timetrial import load_ruleset",
        "from timetrial.judge import Judge",
        "import timetrial.clock as c",
        "from optax import *",
        "import optax._src.base",
        "from optax._src import base",
        "from jax._src import core",
        "import jax.experimental.multihost_utils",
        "from jax import experimental; x = experimental.multihost_utils",
        "from . import elsewhere",
        "from .. import judge",
        "from .__pycache__.hidden import f",
        "import helper",
    ],
    "reach": [
        "x = open('f')",
        "def f(open=open): ...",
        "def f(eval):\n  class A:\n    if 0: eval = 1\n    x = eval('1')",
        "def f(eval):\n  def g():\n    global eval\n    eval('1')",
        "def f(x=lambda eval: 0): eval('1')",
        "@eval\ndef f(eval): ...",
        "def f(np):\n  import jax as np\n  np.live_arrays()",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "f = eval",
        "globals()['x'] = 1",
        "vars(jnp)",
        "x = (lambda: 0).__globals__",
        "().__class__.__bases__[0].__subclasses__()",
        "x = __builtins__",
        "x = __file__",
        "getattr(jnp, 'lo' + 'ad')",
        "getattr(jnp, 'load')('x')",
        "getattr(f, '__globals__')",
        "map(getattr, [jax], ['config'])",
        "libraries = [jax]",
        "f(jnp)",
        "j = jax",
        "np.load('w.npy')",
        "np.zeros(3).tofile('w')",
        "np.lib.format.read_array",
        "jnp.save('w', 1)",
        "dataclasses.sys.modules",
        "from dataclasses import sys",
        "functools._thread",
        "optax._src.base",
        "gen().gi_frame.f_back",
        "def step(problem, state): return problem._workload.name",
        "def step(problem, state): return problem.named(state)",
        "def step(p: Problem, state): return p.trees(1, 2)",
        "q = f()\nq._workload.split('test')",
        "hparams._values",
        "jax.live_arrays()",
        "match f:\n  case object(__globals__=g): pass",
        "class C:\n  __match_args__ = ('__globals__',)",
        "class C:\n  def __instancecheck__(self, x): return True",
        "import operator; operator.attrgetter('x')",
        "import typing; typing.get_type_hints(f)",
        "def f(x: 'print(1)'): ...",
        f"def f(x: '{'-' * 20_000}1'): ...",
        "@functools.singledispatch\ndef f(x): ...",
    ],
    "kernels": [
        "jax.pure_callback(f, 1)",
        "from jax import pure_callback",
        "from jax.experimental import io_callback",
        "from jax.experimental import pallas as pl",
        "import jax.experimental.pallas.tpu",
        "jax.debug.print('x')",
        "jax.debug.callback(f)",
        "jax.ffi.ffi_call('x', 1)",
        "from jax.interpreters import mlir",
        "import ctypes",
        "from jax.experimental.custom_partitioning import custom_partitioning",
        "thing.io_callback(f)",
        "np.zeros(3).ctypes",
    ],
    "settings": [
        "jax.config.update('jax_enable_x64', True)",
        "from jax import config",
        "update = jax.config.update",
        "with jax.default_matmul_precision('bfloat16'): pass",
        "jax.jit(f, compiler_options={'a': 1})",
        "flags = '--xla_cpu_enable_fast_math=true'",
        "np.seterr(all='ignore')",
        "with jax.disable_jit(): pass",
    ],
    "patching": [
        "jnp.dot = f",
        "optax.adam.x = 1",
        "def step(problem, state): problem.loss = f",
        "def step(p, state): p.loss = f",
        "def make(hparams, task): task.params += ()",
        "setattr(jnp, 'dot', f)",
        "del optax.adam.x",
        "jax.numpy.tables['x'] = 1",
        "for jnp.dot in []: pass",
        "with f() as jnp.dot: pass",
        "from timetrial.submission import TrainState as T; T.__init__ = f",
    ],
    "names": [
        "x = {'lobes': 1}",
        "if name == 'flights': pass",
        "x = 'LOBES'",
        "x = 'lobes+width=20'",
        "x = f'fashion_tanh'",
    ],
    "shapes": [
        "if x.shape == (784, 10): pass",
        "if x.shape[0] == 784: pass",
        "if task.horizon_examples == 180_000: pass",
        "if 64 != task.default_batch_size: pass",
        "rate = 1 if len(task.params) == 27 else 2",
        "if len(task.params) in (20, 22): pass",
        "n = sum(math.prod(i.shape) for i in task.params)\nif n == 123456: pass",
        "n = 0\nfor i in task.params:\n  n += i.size\nif n == 123456: pass",
        "MAGIC = 123456\nif sum(i.size for i in task.params) == MAGIC: pass",
        "def total(task): return sum(i.size for i in task.params)\nx = total(task) == 123456",
        "RATES = {123456: 0.1}\nx = RATES.get(sum(i.size for i in task.params))",
        "x = {784: 1}[p.shape[0]]",
        "match x.shape:\n  case (784, 10): pass",
        "x = jnp.where(p.size == 7840, 1, 2)",
        "if str(p.shape) == '(784, 10)': pass",
        "if np.prod(p.shape) == 7840: pass",
        "if task.horizon_steps() == 2 ** 12: pass",
        "if hash(tuple(i.shape for i in task.params)) == -987654321: pass",
        "if p.shape[0] > 4096: pass",
        "if p.size == n * m + 4096: pass",
    ],
    "weights": [
        f"x = {list(range(NUMBERS + 1))}",
        f"x = jnp.array([{[0.5] * 200}, {[0.5] * 200}])",
        "x = '" + "ab cd " * 400 + "'",
        "x = '" + "Zm9vYmFy" * 40 + "'",
        "x = b'" + "\\x01\\x02" * 1500 + "'",
        f"x = {10**50}",
        f'"""{"Zm9vYmFy" * 40}"""',
    ],
    "same space": [
        "SEARCH_SPACE = space()",
        "SEARCH_SPACE = {n: LogUniform(1, 2) for n in 'ab'}",
        "SEARCH_SPACE = {'a': LogUniform(1, LARGEST)}",
        "if True:\n  SEARCH_SPACE = {}",
        "SEARCH_SPACE = {}\nSEARCH_SPACE = {}",
        "SEARCH_SPACE = {}\nSEARCH_SPACE['a'] = LogUniform(1, 2)",
        "SEARCH_SPACE = {}\nSEARCH_SPACE.update(a=1)",
        "SEARCH_SPACE = {**other}",
        "SEARCH_SPACE, other = {'a': LogUniform(1, LARGEST)}, 0",
        "for SEARCH_SPACE in [{'a': LogUniform(1, LARGEST)}]: pass",
        "(SEARCH_SPACE := {'a': LogUniform(1, LARGEST)})",
        "class SEARCH_SPACE: pass",
        "match {'a': LogUniform(1, LARGEST)}:\n  case SEARCH_SPACE: pass",
        "from .helper import SPACE as SEARCH_SPACE",
        "from math import pi as SEARCH_SPACE",
    ],
}
"""What breaks each rule: in the last line that is no continuation, or in the file as a whole."""


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in BREAKS.items() for text in texts])
def test_what_breaks_a_rule_is_named_with_its_line(tmp_path: Path, rule: str, text: str):
    said = verdicts(tmp_path, ORDINARY + text)
    places = found(said).get(rule, [])
    lines = {int(place.rpartition(":")[2]) for place in places if place and ":" in place}
    first = ORDINARY.count("\n") + 1
    assert lines <= set(range(first, first + text.count("\n") + 1)), places
    assert lines or places == ["submission.py"], f"{rule} found nothing; {found(said)}"
    assert all(v.todo for v in said if v.status != "pass")


PASSES = [
    "",
    "def open_loop(x): return x",
    "x = getattr(jnp, 'sqrt')",
    "x = jnp.sqrt(jnp.sum(jnp.square(x)))",
    "x = [jax.tree.map(lambda p, g: p - g, params, grads)]",
    "x = lax.scan(f, x, None, length=5)",
    "def step(problem, state): return problem.loss(state.params, state._asdict())",
    "class A:\n  def __init__(self): self._rate = 1\n  def rate(self): return self._rate",
    "from .helper import _rate\nfrom . import helper\nx = _rate(1) + helper._rate(1)",
    "x = sparse.BCOO.fromdense(x)",
    "x = np.random.RandomState(0).normal(size=3)",
    "from .helper import rate\nx = rate(1)",
    "from . import helper\nx = helper.rate(1)",
    "import jax.scipy.signal\nx = jax.scipy.signal.convolve(x, x)",
    "class Adam:\n  def __init__(self): self.count = 0\n  def __call__(self, x): return x",
    "state = state._replace(step=1)\nx = {}\nx['m'] = 1\ntask = dataclasses.replace(task)",
    "raise ValueError('lobe')",
    "x = hparams.optimizer == 'adam'",
    "if p.ndim == 2 and p.shape[-1] == 1: pass",
    "if max(p.shape) % 128 == 0: pass",
    "if p.shape[0] == p.shape[1]: pass",
    "if task.loss_type == 'softmax_cross_entropy' and info.kind in ('bias', 'embedding'): pass",
    "if len(p.shape) > 2: pass",
    "if task.device_count > 8: pass",
    "norm = jnp.sum(g**2) / g.size\nx = jnp.where(norm > 1000.0, 1, norm)",
    "x = jnp.where(state.step == 1000, 1, 2)",
    "x = {0: 'a', 1: 'b'}[info.depth]",
    "COEFFICIENTS = [(3.4445, -4.7750, 2.0315)] * 5",
    f"x = {list(range(NUMBERS))}",
    "def f(x: 'jax.Array') -> 'list[int]': ...",
    '"""' + "What the lobes of the flights do, at length. " * 100 + '"""',
    "SEARCH_SPACE = {'a': LogUniform(1e-4, 10**-2, default=1 / 300), 'b': Choice(['x', 'y'])}",
    "SEARCH_SPACE = [{'a': 0.1, 'b': True}, {'a': -0.2, 'b': False}]",
    "from .helper import SEARCH_SPACE",
    "def loss(input, *, vars=None): return input + sum(vars)",
    "x = lambda input: [input * y for y in range(3)]",
    "from jax import tree\ndef norm(tree): return jnp.sqrt(sum(tree))",
    "space = {}\nspace.update(a=1)",
]


@pytest.mark.parametrize("text", PASSES)
def test_ordinary_code_passes_every_rule(tmp_path: Path, text: str):
    assert found(verdicts(tmp_path, ORDINARY + text, {"helper.py": "def rate(t): return t\n_rate = rate"})) == {}


def test_a_file_s_libraries_are_seen_through_the_submission_s_own_modules(tmp_path: Path):
    said = verdicts(tmp_path, "from . import helper\nhelper.j.config.update('a', 1)", {"helper.py": "import jax as j"})
    assert found(said) == {"settings": ["submission.py:2"]}


def test_every_file_of_the_folder_is_read(tmp_path: Path):
    said = verdicts(tmp_path, SGD, {"parts/inner.py": "\nimport os", "parts/__init__.py": "from .inner import x"})
    assert found(said) == {"imports": ["parts/inner.py:2"]}


def test_modules_that_import_each_other_s_names_are_read_to_an_end(tmp_path: Path):
    said = verdicts(tmp_path, "from .a import x\nx.y", {"a.py": "from .b import x", "b.py": "from .a import x"})
    assert found(said) == {}


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("weights.npz", b"PK\x03\x04", "files"),
        ("notes.md", b"\xff\xfe", "files"),
        ("blob.txt", b"a\0b", "files"),
        ("notes.txt", b"x" * 300_000, "files"),
        ("module.so", b"ELF", "files"),
        ("submission.toml", "authors = []\nlicense = 'MIT'\ndescription = 'x'", "manifest"),
        ("submission.toml", "authors = ['A']\ndescription = 'x'", "manifest"),
        ("submission.toml", "authors = ", "manifest"),
        ("submission.toml", MANIFEST.replace("MIT", "my own"), "manifest"),
        ("submission.toml", MANIFEST + "sponsor = 'x'", "manifest"),
        ("README.md", " \n", "manifest"),
    ],
)
def test_files_that_do_not_belong_or_say_too_little_are_named(tmp_path: Path, name: str, content: str, rule: str):
    said = verdicts(tmp_path, SGD, {name: content})
    assert list(found(said)) == [rule]
    assert {str(place).partition(":")[0] for place in found(said)[rule]} == {name}


def test_licences_and_notes_may_lie_in_the_folder(tmp_path: Path):
    files = {"LICENSE": "MIT", "requirements.txt": "", "paper.md": "# x", "pyproject.toml": "", "docs/more.txt": ""}
    either = MANIFEST.replace("MIT", "(MIT OR Apache-2.0) AND BSD-3-Clause")
    assert found(verdicts(tmp_path, SGD, {**files, "submission.toml": either})) == {}


def test_a_link_out_of_the_folder_fails_and_one_within_it_does_not(tmp_path: Path):
    source = write(tmp_path, SGD)
    (tmp_path / "secret.md").write_text("x")
    (source.folder / "README.md").write_text("x")
    (source.folder / "submission.toml").write_text(MANIFEST)
    (source.folder / "again.md").symlink_to("README.md")
    assert found(list(check_static(source))) == {}
    (source.folder / "out.md").symlink_to(tmp_path / "secret.md")
    (source.folder / "up").symlink_to(tmp_path)
    assert found(list(check_static(source))) == {"files": ["out.md", "up"]}


def test_a_single_file_is_asked_for_a_folder_with_a_warning(tmp_path: Path):
    (tmp_path / "alone.py").write_text("import jax")
    (tmp_path / "weights.npz").write_bytes(b"PK")
    said = list(check_static(Source("alone", tmp_path / "alone.py")))
    assert found(said) == {"manifest": ["alone.py"]}
    assert report_of(Source("alone", tmp_path / "alone.py"), said).passed


def test_what_fails_is_a_warning_for_a_submission_written_for_algoperf(tmp_path: Path):
    said = verdicts(tmp_path, JIT + "\0import os, algoperf.spec, absl.logging")
    assert list(found(said)) == ["imports"]
    assert {verdict.status for verdict in said} == {"pass", "warn"}


@pytest.mark.parametrize("name", sorted(submission_folders()))
def test_every_submission_that_comes_along_passes_without_a_warning(name: str):
    said = list(check_static(find_source(name)))
    assert found(said) == {}
    assert [verdict.rule for verdict in said] == list(RULES)


@pytest.mark.parametrize("package", [False, True])
def test_a_new_submission_lacks_nothing_but_its_author_s_name(tmp_path: Path, package: bool, capsys):
    assert main(["new", "submission", "mine", "--into", str(tmp_path), *(["--package"] if package else [])]) == 0
    source = find_source(str(tmp_path / "mine" / "src" / "mine" if package else tmp_path / "mine"))
    said = list(check_static(source))
    assert [(v.rule, v.status, v.where) for v in said if v.status != "pass"] == [
        ("manifest", "warn", "submission.toml")
    ]


def test_of_the_standard_library_only_what_computes_may_be_imported(tmp_path: Path):
    refused = {name for name in sys.stdlib_module_names if found(verdicts(tmp_path, f"import {name}"))}
    assert sys.stdlib_module_names - refused == {
        "__future__", "abc", "cmath", "collections", "contextlib", "copy", "dataclasses", "enum", "fractions",
        "functools", "itertools", "math", "numbers", "operator", "types", "typing",
    }  # fmt: skip


@given(
    st.integers(0, 10**6), st.sampled_from(["x.shape[0] == {}", "{} == x.size", "len(x) in [{}]", "x.shape != ({}, 1)"])
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_workload_s_number_may_equal_small_literals_alone(tmp_path: Path, literal: int, form: str):
    assert ("shapes" in found(verdicts(tmp_path, form.format(literal)))) == (literal > LARGEST_ORDINARY)


@given(st.integers(0, 2 * NUMBERS))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_literal_is_suspicious_from_a_fixed_count_of_numbers_on(tmp_path: Path, count: int):
    assert ("weights" in found(verdicts(tmp_path, f"x = {{'a': {[0.5] * count}}}"))) == (count > NUMBERS)


PIECES = st.sampled_from([text for texts in BREAKS.values() for text in texts] + PASSES)


@given(st.lists(PIECES, max_size=4), st.integers(0, 5))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blank_lines_above_move_every_finding_by_as_many_lines(tmp_path: Path, pieces: list[str], blank: int):
    text = "\n".join(pieces)
    plain, moved = verdicts(tmp_path, text), verdicts(tmp_path, "\n" * blank + text)

    def shifted(place: str | None) -> str | None:
        path, _, line = (place or "").rpartition(":")
        return f"{path}:{int(line) + blank}" if line.isdigit() and path == "submission.py" else place

    assert [(v.rule, v.status, shifted(v.where)) for v in plain] == [(v.rule, v.status, v.where) for v in moved]


@given(st.one_of(st.text(), st.binary()))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_at_all_get_a_verdict_from_every_rule(tmp_path: Path, text: str | bytes):
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    said = verdicts(tmp_path, "", {"submission.py": content})
    assert list(dict.fromkeys(verdict.rule for verdict in said)) == list(RULES)


def test_the_report_as_json_holds_each_verdict_with_place_and_advice(tmp_path: Path):
    said = verdicts(tmp_path, "import os")
    source = Source("mine", tmp_path / "mine" / "submission.py")
    report = report_of(source, said).to_json()
    assert {key: report[key] for key in ("schema", "submission", "api", "passed", "sha256")} == {
        "schema": 1,
        "submission": "mine",
        "api": "timetrial",
        "passed": False,
        "sha256": source.sha256,
    }
    (failed,) = (verdict for verdict in report["verdicts"] if verdict["status"] == "fail")
    assert set(failed) == {"rule", "status", "message", "workload", "where", "todo"}
    assert (failed["rule"], failed["where"], failed["workload"]) == ("imports", "submission.py:1", None)


def test_the_static_half_imports_neither_the_submission_nor_jax(tmp_path: Path):
    source = write(tmp_path, "raise SystemExit('imported')")
    code = f"import sys; from timetrial.cli import main; print(main(['check', {str(source.folder)!r}, '--static']))"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; print('jax' in sys.modules)"],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-2:] == ["1", "False"]
    assert "FAIL  manifest: submission.toml: is missing" in result.stdout
