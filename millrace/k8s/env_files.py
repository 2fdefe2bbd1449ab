"""Files of lines `NAME=value`, changed without touching what else a person wrote into them. Pure.

Kustomize takes everything behind the first `=` as it is, quotes and blanks included.
"""

from collections.abc import Mapping

from millrace.k8s.problems import Unfit


def parse(text: str, name: str) -> dict[str, str]:
    """The variables of a file; `name` stands for it in errors. Raises `Unfit`."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.lstrip()
        if not line or line.startswith("#"):
            continue
        variable, equals, value = line.partition("=")
        if not equals or not variable.isidentifier():
            raise Unfit([f"{name}:{number}: this is not NAME=value"])
        if variable in found:
            raise Unfit([f"{name}:{number}: {variable} was given before"])
        found[variable] = value
    return found


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The file with these variables: changed where they stand, the others added at its end."""
    left = dict(values)
    lines = []
    for line in text.splitlines():
        variable = line.partition("=")[0].strip()
        lines.append(f"{variable}={left.pop(variable)}" if variable in left else line)
    lines += [f"{variable}={value}" for variable, value in left.items()]
    return "\n".join(lines) + "\n" if lines else ""
