"""A ruleset may say to what a model's products are rounded."""

import jax
import pytest
from toy_trials import STRICT, rules, run
from toys import toy_workload

from timetrial.workload import at_precision


def test_a_ruleset_without_a_precision_leaves_the_model_alone(tmp_path):
    workload = toy_workload()
    assert at_precision(workload, None) is workload
    record = run(tmp_path, STRICT)
    assert record.end is not None
    assert record.end.status == "error"
    assert record.run.matmul_precision is None


def test_training_obeys_the_ruleset_and_the_record_says_so(tmp_path):
    record = run(tmp_path, STRICT, ruleset=rules(budget=800, matmul_precision="float32"))
    assert record.end is not None
    assert record.end.status == "budget", record.end.message
    assert record.run.matmul_precision == "float32"


@pytest.mark.parametrize(
    ("name", "level"), [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")]
)
def test_every_product_of_an_evaluation_has_the_precision(name, level):
    workload = at_precision(toy_workload(), name)
    params, model_state = workload.init(jax.random.key(0))
    batch = {**workload.random_batch(4, 0), "weights": jax.numpy.ones(4)}
    equations = jax.make_jaxpr(workload.evaluate)(params, model_state, batch).eqns
    products = [equation.params["precision"] for equation in equations if equation.primitive.name == "dot_general"]
    assert products
    assert {str(each) for both in products for each in both} == {level}
