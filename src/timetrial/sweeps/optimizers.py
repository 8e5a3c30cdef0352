"""The 15 optimizers of "Descending through a Crowded Valley" (Schmidt, Schneider and Hennig 2021), with its tuning.

Defaults (the one-shot runs) and the bounds of the search are those of the study's published runs, whose file names hold
every hyperparameter (github.com/SirRob1997/Crowded-Valley---Results): exact for the defaults; for the search the round
numbers that enclose all values found there. AdaBelief came later than those files: its default is that of its paper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import optax

from timetrial.submission import Submission, Task, from_optax
from timetrial.sweeps.rules import bounded_adam, lookahead
from timetrial.sweeps.schedules import factor
from timetrial.tuning import Hparams, Integers, LogUniform

SCHEDULE = "schedule"
"""The hyperparameter that is the number of the schedule: traced like the others, so that one program serves all."""


@dataclass(frozen=True)
class Optimizer:
    """One way to turn gradients into updates, and where its hyperparameters are searched."""

    build: Callable[[Hparams], optax.GradientTransformation]
    """At the full learning rate; the schedule's factor comes after it."""
    space: Mapping[str, LogUniform | Integers]
    reference: str
    around: Callable[[Hparams, optax.GradientTransformation], optax.GradientTransformation] | None = None
    """Goes around the scheduled optimizer."""


def _rate(default: float) -> dict[str, LogUniform]:
    return {"learning_rate": LogUniform(1e-4, 1.0, default)}


def _betas() -> dict[str, LogUniform]:
    return {"b1": LogUniform(0.5, 0.999, 0.9), "b2": LogUniform(0.8, 0.999, 0.999)}


def _share(name: str, default: float) -> dict[str, LogUniform]:
    """Of a momentum or a decay, which the study drew log-uniformly itself, and not its distance from 1."""
    return {name: LogUniform(1e-3, 1.0, default)}


def _bound() -> dict[str, LogUniform]:
    return {"final_rate": LogUniform(1e-3, 0.5, 0.1), "gamma": LogUniform(1e-4, 1e-1, 1e-3)}


def _lookahead() -> dict[str, LogUniform | Integers]:
    return {"slow_rate": LogUniform(1e-4, 1.0, 0.5), "period": Integers(1, 20, 5)}


def _radam(h: Hparams) -> optax.GradientTransformation:
    return optax.radam(h.learning_rate, h.b1, h.b2, eps=1e-7)


def _momentum(h: Hparams) -> optax.GradientTransformation:
    return optax.sgd(h.learning_rate, momentum=h.momentum)


def _look_ahead(h: Hparams, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return lookahead(inner, h.period, h.slow_rate)


def _bounded(h: Hparams, *, amsgrad: bool) -> optax.GradientTransformation:
    return bounded_adam(h.learning_rate, h.b1, h.b2, h.final_rate, h.gamma, eps=1e-8, amsgrad=amsgrad)


OPTIMIZERS: Mapping[str, Optimizer] = {
    "amsbound": Optimizer(
        lambda h: _bounded(h, amsgrad=True), _rate(1e-3) | _betas() | _bound(), "Luo et al. 2019, algorithm 3"
    ),
    "amsgrad": Optimizer(
        lambda h: optax.amsgrad(h.learning_rate, h.b1, h.b2, eps=1e-8), _rate(1e-2) | _betas(), "Reddi et al. 2018"
    ),
    "adabelief": Optimizer(
        lambda h: optax.adabelief(h.learning_rate, h.b1, h.b2, eps=1e-14, eps_root=1e-14),
        _rate(1e-3) | _betas(),
        "Zhuang et al. 2020",
    ),
    "adabound": Optimizer(
        lambda h: _bounded(h, amsgrad=False), _rate(1e-3) | _betas() | _bound(), "Luo et al. 2019, algorithm 2"
    ),
    "adadelta": Optimizer(
        lambda h: optax.adadelta(h.learning_rate, rho=h.rho, eps=1e-8), _rate(1e-3) | _share("rho", 0.95), "Zeiler 2012"
    ),
    "adagrad": Optimizer(
        lambda h: optax.adagrad(h.learning_rate, initial_accumulator_value=0.1, eps=1e-7),
        _rate(1e-2),
        "Duchi et al. 2011",
    ),
    "adam": Optimizer(
        lambda h: optax.adam(h.learning_rate, h.b1, h.b2, eps=1e-8), _rate(1e-3) | _betas(), "Kingma & Ba 2015"
    ),
    "lookahead_momentum": Optimizer(
        _momentum, _rate(1e-2) | _share("momentum", 0.99) | _lookahead(), "Zhang et al. 2019", _look_ahead
    ),
    "lookahead_radam": Optimizer(_radam, _rate(1e-3) | _betas() | _lookahead(), "Zhang et al. 2019", _look_ahead),
    "momentum": Optimizer(_momentum, _rate(1e-2) | _share("momentum", 0.99), "Polyak 1964"),
    "nag": Optimizer(
        lambda h: optax.sgd(h.learning_rate, momentum=h.momentum, nesterov=True),
        _rate(1e-2) | _share("momentum", 0.99),
        "Nesterov 1983, as Sutskever et al. 2013",
    ),
    "nadam": Optimizer(
        lambda h: optax.nadam(h.learning_rate, h.b1, h.b2, eps=1e-7), _rate(1e-3) | _betas(), "Dozat 2016"
    ),
    "radam": Optimizer(_radam, _rate(1e-3) | _betas(), "Liu et al. 2020"),
    "rmsprop": Optimizer(
        lambda h: optax.rmsprop(h.learning_rate, decay=h.decay, eps=1e-10),
        _rate(1e-3) | _share("decay", 0.9),
        "Tieleman & Hinton 2012",
    ),
    "sgd": Optimizer(lambda h: optax.sgd(h.learning_rate), _rate(1e-2), "Robbins & Monro 1951"),
}


def scheduled(optimizer: Optimizer, steps: int) -> Callable[[Hparams, Task], Submission]:
    """`make` of a submission: `optimizer` at a learning rate that a schedule multiplies, over `steps` steps.

    Every hyperparameter may be traced: those of `optimizer.space`, and the number of the schedule under SCHEDULE.
    """

    def make(hparams: Hparams, task: Task) -> Submission:
        del task
        scale = optax.scale_by_schedule(lambda count: factor(hparams[SCHEDULE], jnp.asarray(count), steps))
        tx = optax.chain(optimizer.build(hparams), scale)
        return from_optax(tx if optimizer.around is None else optimizer.around(hparams, tx))

    return make
