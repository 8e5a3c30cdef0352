"""Static rules: what the files of a submission say, read in well under a second, without importing any of them.

docs/rules.md says in plain words what each rule is for, and what it cannot see.
"""

from collections.abc import Iterator

from timetrial.check import folder, literals, names, selection
from timetrial.check.code import Finding, Module, parse
from timetrial.check.report import Verdict
from timetrial.loading import Source
from timetrial.registry import workload_names

RULES = {
    "python": "every file can be read",
    "files": "code and text, no binaries, no links that leave the folder",
    "manifest": "submission.toml and README.md say whose it is and what it does",
    "imports": "of mathematics, the array libraries and timetrial's public names",
    "reach": "no files, processes, clocks, frames or text run as code",
    "kernels": "no custom kernels, no calls back to the host",
    "settings": "of jax, numpy and XLA are left alone",
    "patching": "nothing is changed but what the submission itself made",
    "names": "no workload is named",
    "shapes": "no workload is recognised by its numbers",
    "weights": "no literals that could hold what was learnt elsewhere",
    "same space": "the search space is a literal, the same for all workloads",
}
"""The rules, in the order in which they are reported, and what holds where one passes."""
_SHOWN = 8
"""Findings of a rule that are shown, at most."""


def check_static(source: Source) -> Iterator[Verdict]:
    """A verdict for each rule that passes, and one for each place where a rule does not.

    What would fail is a warning for a submission that is written for AlgoPerf, whose rules were others.
    """
    modules, broken = parse(source)
    found: dict[str, list[Finding]] = {rule: [] for rule in RULES}
    found["python"] += broken
    found["files"] += folder.files(source)
    found["manifest"] += folder.manifest(source)
    for module in modules.values():
        _read(module, found, algoperf=source.api == "algoperf")
    found["weights"] += literals.weights(modules)
    for rule, findings in found.items():
        yield from _verdicts(rule, findings, source)


def _read(module: Module, found: dict[str, list[Finding]], *, algoperf: bool) -> None:
    found["imports"] += names.imports(module, algoperf=algoperf)
    for rule, finding in names.names(module):
        found[rule].append(finding)
    found["reach"] += names.values(module)
    found["patching"] += names.patching(module)
    found["names"] += selection.workload_names(module, workload_names())
    found["shapes"] += selection.shapes(module)
    found["same space"] += literals.search_space(module)


def _verdicts(rule: str, findings: list[Finding], source: Source) -> Iterator[Verdict]:
    findings = sorted(set(findings), key=_place)
    if not findings:
        yield Verdict(rule=rule, status="pass", message=RULES[rule])
    for finding in findings[:_SHOWN]:
        status = "warn" if source.api == "algoperf" else finding.status
        yield Verdict(rule=rule, status=status, message=finding.message, where=finding.where, todo=finding.todo)
    if left := findings[_SHOWN:]:
        worst = "fail" if any(f.status == "fail" for f in left) and source.api != "algoperf" else "warn"
        yield Verdict(rule=rule, status=worst, message=f"{len(left)} more of these", where=left[0].where)


def _place(finding: Finding) -> tuple[str, int]:
    path, _, line = finding.where.rpartition(":")
    return (path, int(line)) if line.isdigit() else (finding.where, 0)
