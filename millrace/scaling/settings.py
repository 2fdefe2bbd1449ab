"""Settings of `millrace up` where it runs workers as processes."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from millrace.scaling.desired import Rule


class ScalingSettings(BaseSettings):
    """Read from the environment with the prefix `MILLRACE_SCALE_`; seconds everywhere."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_SCALE_", extra="ignore", frozen=True, allow_inf_nan=False
    )

    seconds: float = Field(default=2.0, gt=0, description="Between two looks at the backlog.")
    down_window_seconds: float = Field(
        default=300.0, ge=0, description="A worker goes when it was wanted at no time in it."
    )
    down_workers: int = Field(default=1, ge=1, description="That may go in one period.")
    down_period_seconds: float = Field(default=60.0, gt=0, description="One period.")

    @property
    def rule(self) -> Rule:
        """As the decision wants it."""
        return Rule(
            down_window_seconds=self.down_window_seconds,
            down_workers=self.down_workers,
            down_period_seconds=self.down_period_seconds,
        )
