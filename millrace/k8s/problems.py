"""Everything that is wrong, at once: before something is applied is the time to hear all of it."""

from millrace.problems import Problem


class Unfit(Problem):
    """What an overlay says cannot be rendered or applied. One line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)
