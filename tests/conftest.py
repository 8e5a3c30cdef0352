"""What all tests share: a folder of workloads and submissions to fill, and the list of tests that may skip."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from shelf import Shelf

# How long an example takes says nothing on a busy machine. What else holds (on CI: the same examples each time) stays.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
EXPECTED_SKIPS = Path(__file__).parent / "expected_skips.txt"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the skipped tests whose reason no line of expected_skips.txt explains."""
    if unexpected := _unexpected_skips(terminalreporter):
        terminalreporter.section("unexpected skips", red=True)
        for line in unexpected:
            terminalreporter.line(line)
        terminalreporter.line(f"explain them in {EXPECTED_SKIPS.relative_to(terminalreporter.config.rootpath)}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == pytest.ExitCode.OK and reporter is not None and _unexpected_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unexpected_skips(reporter: pytest.TerminalReporter) -> list[str]:
    """`test: reason` of each skipped test whose reason contains no line of the list."""
    lines = (line.strip() for line in EXPECTED_SKIPS.read_text(encoding="utf-8").splitlines())
    allowed = [line for line in lines if line and not line.startswith("#")]
    skips = [(report.nodeid, report.longrepr[2]) for report in reporter.stats.get("skipped", [])]
    return [f"{test}: {reason}" for test, reason in skips if not any(part in reason for part in allowed)]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background, whose processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Empty folders that timetrial takes for its own while the test runs."""
    import timetrial.workloads
    from timetrial import registry

    for kind in ("workloads", "submissions"):
        (tmp_path / kind).mkdir()
    monkeypatch.setattr(registry, "shipped", lambda kind: tmp_path / kind)
    monkeypatch.setattr(timetrial.workloads, "__path__", [str(tmp_path / "workloads")])
    # Bytecode is known by size and second of its source: a file rewritten at once would run as it was.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield Shelf(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("timetrial.workloads."):
            del sys.modules[name]
            delattr(timetrial.workloads, name.rpartition(".")[2])


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the programs that tests compile are kept while the tests run."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def keep_programs(compiled: Path) -> None:
    """Compiles a program once, though many tests ask for it; a trial under the seconds clock turns this off."""
    from timetrial.compilation import use_cache

    use_cache(compiled)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Programs that run a few times on a few rows: what XLA compiles sooner is done sooner."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
