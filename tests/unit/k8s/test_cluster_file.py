from pathlib import Path

import pytest

from millrace.k8s import cluster
from millrace.k8s.cluster import Cluster, Engine
from millrace.k8s.problems import Unfit

GOOD = """\
engine: ollama
runtime_class: nvidia
tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
storage: {class: local-path, access: ReadWriteMany, gib: 200}
scale_down_seconds: 120
pools:
  - name: gpu-1
    node_selector: {kubernetes.io/hostname: gpu-1}
    gpus: 2
    slices: 3
    memory_gib: 24
    models: [small]
  - name: rest
    memory_gib: 16.5
"""

BROKEN = {
    "empty": ("", "c.yaml: the file is empty; it needs at least `engine:`"),
    "not a mapping": ("- a\n", "c.yaml:1: must be a mapping of `key: value` lines"),
    "no yaml": ("pools: [\n", "c.yaml:2: "),
    "no engine": ("pools: []\n", "c.yaml:1: engine: is missing"),
    "unknown engine": (
        "engine: olama\n",
        "c.yaml:1: engine: must be 'ollama', 'llama-server' or 'outside', not 'olama'",
    ),
    "more than any cluster has": (
        GOOD.replace("gib: 200", "gib: 99999999999").replace("gpus: 2", "gpus: 99999999999"),
        "c.yaml:5: storage.gib: must be less than or equal to 1000000, not 99999999999",
    ),
    "a label that is none": (
        GOOD.replace("hostname: gpu-1", "hostname: 'a b'"),
        "c.yaml:9: pools[0].node_selector: 'a b' is no value of a label",
    ),
    "unknown key": (
        GOOD + "storrage: {}\n",
        "c.yaml:16: storrage: unknown key; did you mean 'storage'?",
    ),
    "unknown key of a pool": (
        GOOD.replace("slices", "slice"),
        "c.yaml:11: pools[0].slice: unknown key; did you mean 'slices'?",
    ),
    "unknown key of the storage": (
        GOOD.replace("{class:", "{clas:"),
        "c.yaml:5: storage.clas: unknown key; did you mean 'class'?",
    ),
    "a number as text": (
        GOOD.replace("gpus: 2", 'gpus: "2"'),
        "c.yaml:10: pools[0].gpus: must be a valid integer, not '2'",
    ),
    "a truth as a number": (
        GOOD.replace("gpus: 2", "gpus: yes"),
        "c.yaml:10: pools[0].gpus: must be a valid integer, not True",
    ),
    "no memory": (
        GOOD.replace("memory_gib: 24", "memory_gib: 0"),
        "c.yaml:12: pools[0].memory_gib: must be greater than 0, not 0",
    ),
    "endless memory": (
        GOOD.replace("memory_gib: 24", "memory_gib: .inf"),
        "c.yaml:12: pools[0].memory_gib: must be a finite number, not inf",
    ),
    "a name that no object can have": (
        GOOD.replace("name: gpu-1", "name: GPU_1"),
        "c.yaml:8: pools[0].name: String should match pattern",
    ),
    "a name that is too long": (
        GOOD.replace("name: gpu-1", f"name: {'g' * 31}"),
        "c.yaml:8: pools[0].name: String should have at most 30 characters",
    ),
    "slices of nothing": (
        GOOD.replace("gpus: 2", "gpus: 0"),
        "c.yaml:8: pools[0]: slices are of GPUs, and gpus is 0",
    ),
    "an effect that Kubernetes does not know": (
        GOOD.replace("NoSchedule", "Never"),
        "c.yaml:4: tolerations[0].effect: must be 'NoSchedule', ",
    ),
    "a pool twice": (
        GOOD.replace("name: rest", "name: gpu-1"),
        "c.yaml:1: two pools have the name 'gpu-1'",
    ),
    "two pools for the rest": (
        GOOD.replace("    models: [small]\n", ""),
        "c.yaml:1: only one pool may be without `models`, to take the rest: gpu-1, rest",
    ),
    "nowhere to run": ("engine: ollama\n", "c.yaml:1: engine `ollama` needs pools to run in"),
    "pools for an engine outside": (
        GOOD.replace("engine: ollama", "engine: outside"),
        "c.yaml:1: pools say where engines run, and engine is `outside`: leave them out",
    ),
    "a window that no autoscaler takes": (
        GOOD.replace("120", "3601"),
        "c.yaml:6: scale_down_seconds: must be less than or equal to 3600, not 3601",
    ),
    "a key twice": (
        GOOD + "engine: ollama\n",
        "c.yaml:16: the key 'engine' was given before, on line 1",
    ),
}


def parse(text: str) -> Cluster:
    return cluster.parse(text, "c.yaml")


def test_a_whole_file_is_read() -> None:
    found = parse(GOOD)
    assert found.engine is Engine.OLLAMA
    assert found.storage.class_ == "local-path"
    assert [pool.models for pool in found.pools] == [("small",), None]
    assert found.pools[0].slices == 3
    assert found.tolerations[0].model_dump(exclude_none=True) == {
        "key": "nvidia.com/gpu",
        "operator": "Exists",
        "effect": "NoSchedule",
    }


def test_an_engine_outside_needs_nothing_more() -> None:
    assert parse("engine: outside\n").pools == ()


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_said_with_line_and_field(text: str, said: str) -> None:
    with pytest.raises(Unfit) as raised:
        parse(text)
    assert raised.value.problems[0].startswith(said)


def test_all_that_is_wrong_is_said_in_the_order_of_the_file() -> None:
    with pytest.raises(Unfit) as raised:
        parse(GOOD.replace("gib: 200", "gib: 0").replace("engine: ollama", "engine: x"))
    assert [line.split(":")[1] for line in raised.value.problems] == ["1", "5"]
    assert "(and 1 more)" in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"cluster\.yaml: no such file"):
        cluster.load(tmp_path / "cluster.yaml")
    (tmp_path / "cluster.yaml").write_bytes(b"engine: \xff")
    with pytest.raises(Unfit, match="not UTF-8 text"):
        cluster.load(tmp_path / "cluster.yaml")
