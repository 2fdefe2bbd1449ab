"""Dark is dark in the same colours, whether the system or a person has chosen it."""

import re
from pathlib import Path

from master import console

STYLES = (Path(console.__file__).parent / "static" / "console.css").read_text("utf-8")
BY_SYSTEM = r':root:not\(\[data-theme="light"\]\) \{([^}]*)\}'
BY_PERSON = r':root\[data-theme="dark"\] \{([^}]*)\}'


def test_both_ways_to_dark_have_the_same_colours() -> None:
    by_system, by_person = (re.findall(pattern, STYLES) for pattern in (BY_SYSTEM, BY_PERSON))
    assert [each.split() for each in by_system] == [each.split() for each in by_person]
    assert "--bg:" in by_system[0]
