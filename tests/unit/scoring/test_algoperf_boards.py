"""The published AlgoPerf v0.5 leaderboard, from its logs, and the rulesets that describe the four boards."""

import pytest
from timetrial_scoring.score import score_folder

from timetrial.ruleset import load_ruleset

PUBLISHED = {
    "shampoo_submission": "0.7784", "schedule_free_adamw": "0.7077", "generalized_adam": "0.6383",
    "cyclic_lr": "0.6301", "nadamp": "0.5909", "baseline": "0.5707", "amos": "0.4918", "caspr_adaptive": "0.4722",
    "lawa_queue": "0.3699", "lawa_ema": "0.3384", "schedule_free_prodigy": "0.0000",
}  # fmt: skip
EXACT = {
    "shampoo_submission": 0.77851, "schedule_free_adamw": 0.70620, "generalized_adam": 0.63704, "cyclic_lr": 0.62890,
    "nadamp": 0.58992, "baseline": 0.56929, "amos": 0.49153, "caspr_adaptive": 0.47217, "lawa_queue": 0.37039,
    "lawa_ema": 0.34309, "schedule_free_prodigy": 0.0,
}  # fmt: skip
EIGHT = (
    "criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit", "librispeech_conformer", "librispeech_deepspeech",
    "ogbg", "wmt",
)  # fmt: skip


def scores(result):
    return {line.submission: line.score for line in result.boards[0].standings}


def test_published_mode_gives_the_published_scores_to_four_decimals(algoperf_logs):
    result = score_folder(algoperf_logs, ruleset="algoperf-v05-external", mode="published")
    assert {name: f"{score:.4f}" for name, score in scores(result).items()} == PUBLISHED


def test_exact_mode_gives_the_closed_form_and_names_what_is_odd(algoperf_logs):
    result = score_folder(algoperf_logs, ruleset="algoperf-v05-external", reference="baseline")
    assert scores(result) == pytest.approx(EXACT, abs=5e-6)
    kinds = [finding.kind for finding in result.findings]
    assert kinds.count("NaN metric") == 12
    outside = [f for f in result.findings if f.kind == "stray" and "measurements outside" in f.message]
    assert len(outside) == 18
    assert "without submission caspr_adaptive: schedule_free_adamw is ahead of shampoo_submission, and first" in {
        str(flip) for flip in result.boards[0].flips
    }


@pytest.mark.parametrize("version", ["v05", "v06"])
@pytest.mark.parametrize("kind", ["external", "self"])
def test_the_four_rulesets_have_the_eight_workloads_and_one_board(version, kind):
    rules = load_ruleset(f"algoperf-{version}-{kind}")
    assert rules.base_workloads == EIGHT
    assert len(rules.workloads) == (14 if version == "v05" else 8)
    tuning = rules.tuning(self_tuning=kind == "self")
    assert (rules.external is None) == (kind == "self")
    assert (tuning.studies, tuning.trials) == (5 if version == "v05" else 3, 5 if kind == "external" else 1)


@pytest.mark.parametrize(("version", "budget"), [("v05", 3 * 18_477), ("v06", 1.5 * 12_011)])
def test_self_tuning_has_a_multiple_of_the_budget(version, budget):
    assert load_ruleset(f"algoperf-{version}-self").budget("ogbg", self_tuning=True) == budget


def test_rulesets_state_the_published_targets_and_directions():
    targets = {name: str(rules.target) for name, rules in load_ruleset("algoperf-v05-external").workloads.items()}
    assert targets == {
        "criteo1tb": "loss <= 0.123735", "criteo1tb_embed_init": "loss <= 0.129657", "fastmri": "ssim >= 0.723653",
        "fastmri_tanh": "ssim >= 0.71784", "imagenet_resnet": "accuracy >= 0.77431",
        "imagenet_resnet_large_bn_init": "accuracy >= 0.76526", "imagenet_vit": "accuracy >= 0.77309",
        "librispeech_conformer": "wer <= 0.085884", "librispeech_conformer_layernorm": "wer <= 0.09731",
        "librispeech_deepspeech": "wer <= 0.119936", "ogbg": "mean_average_precision >= 0.28098",
        "ogbg_model_size": "mean_average_precision >= 0.269446", "wmt": "bleu >= 30.8491",
        "wmt_glu_tanh": "bleu >= 29.5779",
    }  # fmt: skip
