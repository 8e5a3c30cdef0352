"""The full track: AlgoPerf's models at their published size, none of whose data are needed here."""

import math
from dataclasses import replace
from functools import cache
from importlib import import_module

import jax
import numpy as np
import pytest
from arbitrary import arbitrary_state
from small_models import small, small_batch

from timetrial import lock, registry, variants
from timetrial.cli import main
from timetrial.errors import UserError
from timetrial.ruleset import load_ruleset

# Parameters and arrays of each workload of AlgoPerf 0.6, counted with its own code. imagenet_vit_post_ln fails to
# initialise there: it is the base less the encoder's last norm (2 arrays of 384).
PUBLISHED = {
    "criteo1tb": (539_267_457, 17),
    "criteo1tb_layernorm": (539_275_137, 33),
    "criteo1tb_embed_init": (539_267_457, 17),
    "criteo1tb_resnet": (538_121_473, 17),
    "criteo1tb_test": (10_785_153, 17),
    "fastmri": (7_756_097, 24),
    "fastmri_model_size": (7_692_929, 19),
    "fastmri_tanh": (7_756_097, 24),
    "fastmri_layernorm": (7_761_985, 60),
    "finewebedu_lm": (252_815_372, 110),
    "imagenet_resnet": (25_557_032, 161),
    "imagenet_resnet_silu": (25_557_032, 161),
    "imagenet_resnet_gelu": (25_557_032, 161),
    "imagenet_resnet_large_bn_init": (25_557_032, 161),
    "imagenet_vit": (22_122_472, 200),
    "imagenet_vit_glu": (50_452_456, 224),
    "imagenet_vit_post_ln": (22_122_472 - 2 * 384, 200 - 2),
    "imagenet_vit_map": (23_896_552, 215),
    "librispeech_conformer": (32_321_792, 154),
    "librispeech_conformer_attention_temperature": (32_321_792, 154),
    "librispeech_conformer_layernorm": (32_317_696, 146),
    "librispeech_conformer_gelu": (32_321_792, 154),
    "librispeech_deepspeech": (18_381_312, 178),
    "librispeech_deepspeech_tanh": (18_381_312, 178),
    "librispeech_deepspeech_no_resnet": (18_381_312, 178),
    "librispeech_deepspeech_norm_and_spec_aug": (18_380_288, 176),
    "ogbg": (3_554_176, 66),
    "ogbg_gelu": (3_554_176, 66),
    "ogbg_silu": (3_554_176, 66),
    "ogbg_model_size": (2_571_648, 78),
    "wmt": (133_521_408, 185),
    "wmt_post_ln": (133_517_312, 181),
    "wmt_attention_temp": (133_521_408, 185),
    "wmt_glu_tanh": (146_116_608, 209),
}
BASES = registry.workload_names("full")
load = cache(registry.load_workload)


@cache
def initial_shapes(name):
    """Of the parameters and the model state."""
    return jax.eval_shape(load(name).init, jax.random.key(0))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_arrays_are_as_many_as_algoperf_has(name):
    workload = load(name)
    assert (workload.track, workload.target) == ("full", None)
    assert workload.variant_of == (None if name in BASES else registry.base_of(name))
    leaves = jax.tree.leaves(initial_shapes(name)[0])
    assert (sum(math.prod(leaf.shape) for leaf in leaves), len(leaves)) == PUBLISHED[name]
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    infos = jax.tree.leaves(workload.param_info)
    assert [info.shape for info in infos] == [leaf.shape for leaf in leaves]
    heads = [info.kind for info in infos if info.kind in ("output_head", "tied_embedding")]
    assert len(heads) == 1
    for info in infos:
        axes = (*info.in_axes, *info.out_axes, *info.batch_axes)
        assert sorted(axes) == list(range(len(info.shape)))


def test_the_track_has_algoperfs_workloads_and_their_variants():
    found = [name for base in BASES for name in (base, *variants.fixed(base))]
    assert sorted(found) == sorted(PUBLISHED)


def test_axes_begin_with_the_bases_values_and_hold_those_of_the_variants():
    for base in BASES:
        module = import_module(f"timetrial.workloads.{base}")
        assert all(values[0] == getattr(module.MODEL, axis) for axis, values in module.AXES.items())
        changes = [change for name, c in module.VARIANTS.items() if name != "criteo1tb_test" for change in c.items()]
        assert all(value in module.AXES[axis][1:] for axis, value in changes)


@pytest.mark.parametrize("base", BASES)
def test_what_needs_data_says_which_files_are_missing(base, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_DATA", str(tmp_path))
    workload = load(base)
    with pytest.raises(UserError, match=f"data set {workload.data.name}: "):
        workload.rows("valid")


def test_commands_mean_the_mini_track_unless_a_workload_of_the_full_one_is_named(capsys):
    assert not {*registry.workload_names("mini")} & {*BASES}
    assert main(["data", "status", "fastmri"]) == 0
    assert "fastmri_knee_singlecoil" in capsys.readouterr().out
    with pytest.raises(UserError, match="fastmri_knee_singlecoil"):
        load("fastmri_tanh").data.prepare()


def test_every_workload_of_the_track_is_locked_by_its_arrays():
    locked = lock.read_lock()
    for name, (parameters, arrays) in PUBLISHED.items():
        table = locked[name]
        assert (table["track"], table["parameters"], table["parameter_arrays"]) == ("full", parameters, arrays)
        assert "fingerprint" not in table
        assert table["arrays_sha256"] == lock.arrays_sha256(*initial_shapes(name))


def test_the_lock_of_arrays_sees_paths_shapes_and_dtypes():
    tree = {"a": np.zeros((2, 3), np.float32)}
    others = [{"b": tree["a"]}, {"a": np.zeros((3, 2), np.float32)}, {"a": np.zeros((2, 3), np.int32)}]
    assert lock.arrays_sha256(tree, {}) == lock.arrays_sha256(jax.eval_shape(lambda: tree), {})
    assert len({lock.arrays_sha256(t, {}) for t in [tree, *others]} | {lock.arrays_sha256({}, tree)}) == 5


def test_a_workload_of_another_track_than_its_source_says_is_refused(shelf):
    shelf.add_workload("alpha", 'from toys import toy_workload\nWORKLOAD = toy_workload(name="alpha", track="full")\n')
    with pytest.raises(UserError, match="'alpha' is of the full track, but the source of 'alpha' says mini"):
        registry.load_workload("alpha")


def test_names_are_of_one_track_or_of_all(shelf):
    shelf.add_workload("alpha", 'raise RuntimeError("listing must not import")')
    shelf.add_workload("beta", 'TRACK = "full"\nraise RuntimeError("listing must not import")')
    assert (registry.workload_names("mini"), registry.workload_names("full")) == (["alpha"], ["beta"])
    assert registry.workload_names() == ["alpha", "beta"]


@pytest.mark.parametrize("name", ["full-v1", "full-v1-qualification"])
def test_the_rulesets_of_the_track_have_algoperfs_budgets_and_targets(name):
    ruleset, published = load_ruleset(name), load_ruleset("algoperf-v06-external").workloads
    drawn = load_ruleset("algoperf-v05-external").workloads
    for workload_name, rules in ruleset.workloads.items():
        workload = load(workload_name)
        assert rules.variant_of == workload.variant_of
        assert rules.target is not None
        assert rules.horizon_examples is not None
        assert (rules.target.metric, rules.target.better) == (workload.metric, workload.better)
        assert rules.horizon_examples % workload.default_batch_size == 0
        base = ruleset.workloads[workload.variant_of or workload_name]
        assert (rules.budget, rules.eval_every) == (base.budget, base.eval_every)
        if workload_name in published:
            assert replace(rules, horizon_examples=None) == published[workload_name]
        elif workload_name in drawn:
            assert (rules.target, rules.test_target) == (drawn[workload_name].target, drawn[workload_name].test_target)
    assert ruleset.tuning(self_tuning=False).trials == 5
    assert ruleset.tuning(self_tuning=True).budget_factor == 1.5


def test_full_v1_has_all_bases_and_what_was_drawn_and_the_qualification_three_of_them():
    full, few = load_ruleset("full-v1"), load_ruleset("full-v1-qualification")
    assert sorted(full.base_workloads) == BASES
    drawn = load_ruleset("algoperf-v05-external").workloads
    assert {*full.workloads} - {*full.base_workloads} == {name for name, rules in drawn.items() if rules.variant_of}
    assert few.base_workloads == ("criteo1tb", "ogbg", "wmt") == tuple(few.workloads)
    assert all(rules == full.workloads[name] for name, rules in few.workloads.items())
    studies = [rules.tuning(self_tuning=own).studies for rules in (full, few) for own in (False, True)]
    assert studies == [3, 3, 1, 3]


INITIAL_LOSS = {
    "criteo1tb": (math.log(2), 0.5),
    "fastmri": (1.0, 0.5),
    "finewebedu_lm": (math.log(500) + 0.5 * 64 * 0.02**2, 0.02),
    "imagenet_resnet": (math.log(1000), 0.02),
    "imagenet_vit": (math.log(1000), 1e-6),
    "ogbg": (math.log(2), 0.3),
    "wmt": (math.log(500) + 0.5, 0.05),
}
"""And how far from it the loss of the initial weights may be, as a share. Of independent logits with the deviation s,
the mean cross-entropy of V classes is ln V + s^2 / 2."""


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("base", BASES)
def test_a_first_step_is_sane(base):
    """The loss is that of a model that knows nothing; at arbitrary weights every kind of array has a gradient."""
    workload, key = small(base), jax.random.key(0)
    batch = small_batch(workload, 3)

    @jax.jit
    def step(params, model_state):
        def mean_loss(params):
            outputs, new_state = workload.apply(params, model_state, batch, key, train=True)
            losses, terms = workload.loss(outputs, batch)
            return losses.sum() / terms.sum(), (outputs, new_state)

        return jax.value_and_grad(mean_loss, has_aux=True)(params)

    (loss, (outputs, new_state)), _ = step(*jax.jit(workload.init)(key))
    if base in INITIAL_LOSS:
        expected, share = INITIAL_LOSS[base]
        assert float(loss) == pytest.approx(expected, rel=share)
    else:  # of CTC: no more than that of one path, of which there are many
        assert 0 < float(loss) < outputs.shape[1] * (math.log(1024) + 1)
    assert np.isfinite(outputs).all()
    assert bool(jax.tree.leaves(new_state)) == workload.rows_coupled

    (loss, _), gradient = step(*arbitrary_state(workload))
    assert np.isfinite(loss)
    norms: dict[str, float] = {}
    for info, leaf in zip(jax.tree.leaves(workload.param_info), jax.tree.leaves(gradient), strict=True):
        norms[info.kind] = norms.get(info.kind, 0.0) + float(np.sum(np.square(leaf)))
    assert all(0 < norm < math.inf for norm in norms.values()), norms
