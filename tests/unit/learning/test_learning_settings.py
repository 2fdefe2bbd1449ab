"""Settings of learning are checked together, at start."""

from typing import Any

import pytest
from pydantic import ValidationError

from master.learning.settings import LearningSettings
from master.rules.trial import Terms


def test_without_settings_only_people_put_rules_on_trial() -> None:
    settings = LearningSettings()
    assert settings.rules_trial_share == 0
    assert settings.trial_terms == Terms() == Terms(votes=30, raters=5, error=0.05)


@pytest.mark.parametrize(
    "given",
    [
        {"rules_trial_share": 0.51},
        {"rules_trial_share": -0.1},
        {"rules_trial_share": float("nan")},
        {"rules_trial_votes": 9},
        {"rules_trial_raters": 2},
        {"rules_trial_error": 0.0},
        {"rules_trial_error": 0.5},
        {"rules_trial_questions": 0},
        {"learning_seconds": 0.0},
        {"learning_days": 91.0},
    ],
    ids=str,
)
def test_what_would_let_anything_pass_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(given))):
        LearningSettings(**given)


def test_every_rater_has_at_least_one_vote() -> None:
    with pytest.raises(ValidationError, match="MILLRACE_RULES_TRIAL_VOTES must be at least"):
        LearningSettings(rules_trial_votes=10, rules_trial_raters=11)
