"""Rules for `describe_params`, by layer: each function returns those for the arrays of one."""

from typing import Any

from timetrial.workload import Kind

Rule = tuple[str, dict[str, Any]]


def vector(path: str, kind: Kind, depth: int) -> Rule:
    """One array of a feature each."""
    return path, {"kind": kind, "out_axes": (0,), "depth": depth}


def dense(path: str, depth: int, *, kind: Kind = "weight", bias: bool = True) -> list[Rule]:
    """A kernel (in, out), and a bias."""
    return _affine(path, kind, depth, axes=2, bias=bias)


def conv(path: str, depth: int, *, axes: int = 4, bias: bool = False, kind: Kind = "conv") -> list[Rule]:
    """A kernel (window…, in, out), and a bias."""
    return _affine(path, kind, depth, axes=axes, bias=bias)


def _affine(path: str, kind: Kind, depth: int, *, axes: int, bias: bool) -> list[Rule]:
    kernel = {"kind": kind, "in_axes": tuple(range(axes - 1)), "out_axes": (axes - 1,), "depth": depth}
    return [(f"{path}/kernel", kernel), *([vector(f"{path}/bias", "bias", depth)] if bias else [])]


def norm(path: str, depth: int) -> list[Rule]:
    """Scale and bias."""
    return [vector(f"{path}/scale", "norm_scale", depth), vector(f"{path}/bias", "norm_bias", depth)]


def attention(path: str, depth: int, *, bias: bool) -> list[Rule]:
    """Projections to queries, keys and values, and one layer deeper that of the result."""
    rules: list[Rule] = []
    kinds: tuple[Kind, Kind, Kind] = ("attention_q", "attention_k", "attention_v")
    for name, kind in zip(("query", "key", "value"), kinds, strict=True):
        rules += dense(f"{path}/{name}", depth, kind=kind, bias=bias)
    return rules + dense(f"{path}/out", depth + 1, kind="attention_out", bias=bias)


def embedding(path: str, *, kind: Kind = "embedding", depth: int = 0) -> Rule:
    """A table (symbols, features)."""
    return path, {"kind": kind, "in_axes": (0,), "out_axes": (1,), "depth": depth}
