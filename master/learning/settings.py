"""Settings of learning, for masters and for Celery workers alike."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from master.rules.trial import Terms


class LearningSettings(BaseSettings):
    """Read from the environment with the prefix `MILLRACE_`."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True)

    learning_seconds: float = Field(
        default=300.0, gt=0, description="Between two rounds of trials and proposals."
    )
    learning_days: float = Field(
        default=7.0, gt=0, le=90, description="That proposals are drawn from."
    )
    rules_trial_share: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Of the questions that fit, for proposals that nobody approved; 0: none.",
    )
    rules_trial_questions: int = Field(
        default=50, ge=1, le=10_000, description="That a rule must fit before it is tried on them."
    )
    rules_trial_votes: int = Field(
        default=30, ge=10, le=10_000, description="Least votes with and without a rule."
    )
    rules_trial_raters: int = Field(
        default=5, ge=3, le=1_000, description="Least raters with and without a rule."
    )
    rules_trial_error: float = Field(
        default=0.05,
        ge=0.0001,
        le=0.2,
        description="How often a rule that changes nothing may become active; to refuse one its"
        " square root is enough, and for taking one back there is no such bound over time.",
    )

    @model_validator(mode="after")
    def _votes_for_all_raters(self) -> Self:
        if self.rules_trial_votes < self.rules_trial_raters:
            raise ValueError(
                "MILLRACE_RULES_TRIAL_VOTES must be at least MILLRACE_RULES_TRIAL_RATERS "
                f"({self.rules_trial_raters}): each rater has voted"
            )
        return self

    @property
    def trial_terms(self) -> Terms:
        """What is asked of the evidence for or against a rule."""
        return Terms(self.rules_trial_votes, self.rules_trial_raters, self.rules_trial_error)
