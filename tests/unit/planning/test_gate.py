import pytest

from master.planning.assign import assign, cheapest_model, default_model, expected_wait
from master.planning.gate import (
    Load,
    decide,
    makespan,
    measured_extra_tokens,
    measured_speedup,
)
from queue_schemas.registry import Capability
from tests.unit.planning.fleets import CODER, QUOTER, QUOTING, SMALL, coder, fleet, question, small

MODEL = small()


def _loads(count, output=400, depends=()):
    return [Load(MODEL, 100, output, depends) for _ in range(count)]


@pytest.mark.parametrize(("free", "turns"), [(4, 1), (2, 2), (1, 4)])
def test_parts_take_turns_on_the_free_slots(free, turns):
    known = fleet(MODEL, free_slots={SMALL: free}, tokens_per_second={SMALL: 40.0})
    one = makespan(_loads(1), known)
    assert one == pytest.approx(0.05 + 410 / 40)
    assert makespan(_loads(4), known) == pytest.approx(turns * one)


def test_a_chain_takes_as_long_as_its_links():
    chain = [Load(MODEL, 100, 400, (n - 1,) if n else ()) for n in range(3)]
    known = fleet(MODEL)
    assert makespan(chain, known) == pytest.approx(3 * makespan(chain[:1], known))


def test_it_pays_with_free_slots_and_says_so_with_numbers():
    gate = decide(Load(MODEL, 120, 1600), _loads(4), fleet(MODEL))
    assert gate.split
    assert gate.expected_speedup == pytest.approx(3.9, abs=0.1)
    assert gate.expected_extra_tokens == 280
    for number in ("4 subtasks", "81 s", "21 s", "3.9 times", "4 free slots", "+280 tokens"):
        assert number in gate.reason


@pytest.mark.parametrize(
    ("whole", "loads", "known", "why"),
    [
        (Load(MODEL, 100, 1600), _loads(4), {"free_slots": {SMALL: 1}}, "hardly be faster"),
        (Load(MODEL, 100, 1600), _loads(4), {"tokens_per_second": {SMALL: 9000.0}}, "soon enough"),
        (Load(MODEL, 100, 800), [Load(MODEL, 3000, 200)] * 4, {}, "too many tokens"),
    ],
    ids=["one slot", "fast engine", "long prompts"],
)
def test_it_does_not_pay(whole, loads, known, why):
    gate = decide(whole, loads, fleet(MODEL, **known))
    assert not gate.split
    assert why in gate.reason


def test_what_does_not_fit_the_context_is_split_at_any_price():
    gate = decide(Load(MODEL, 9000, 300), _loads(2), fleet(MODEL, free_slots={SMALL: 1}))
    assert gate.split
    assert "does not fit" in gate.reason


def test_what_was_measured():
    assert measured_speedup([(0, 10), (0, 8), (2, 8)]) == pytest.approx(2.4)
    assert measured_speedup([]) is None
    assert measured_speedup([(5, 5)]) is None
    assert measured_extra_tokens([50, 60, 70], 100) == 80


def test_a_part_goes_to_the_model_that_can_do_it():
    assert assign(Capability.CODE, 500, fleet(), {}).name == CODER
    assert assign(Capability.SUMMARY, 500, fleet(), {}).name == SMALL
    assert assign(Capability.VISION, 500, fleet(), {}).name == SMALL  # nobody sees: any that chats


def test_of_able_models_the_one_with_the_shortest_wait_is_taken_then_the_cheapest():
    assert assign(Capability.CHAT, 500, fleet(), {}).name == SMALL
    busy = fleet(free_slots={SMALL: 0, CODER: 1}, backlog={SMALL: 9})
    assert assign(Capability.CHAT, 500, busy, {}).name == CODER
    assert (
        assign(Capability.CHAT, 500, fleet(free_slots={SMALL: 2, CODER: 2}), {SMALL: 2}).name
        == CODER
    )


def test_a_part_too_long_for_one_model_goes_to_the_wider_one():
    assert assign(Capability.CHAT, 12_000, fleet(), {}).name == CODER
    assert assign(Capability.CHAT, 10**9, fleet(), {}).name == CODER


def test_a_model_without_workers_is_waited_for():
    known = fleet(free_slots={CODER: 1})
    assert expected_wait(small(), known) > 30
    assert expected_wait(coder(), known) == 0
    assert expected_wait(small(), fleet(small(), free_slots={})) == 0


def test_an_engine_that_only_quotes_is_the_last_choice():
    both = fleet(QUOTING, small())
    assert default_model(question("x"), both).name == SMALL
    assert assign(Capability.CHAT, 100, both, {}).name == SMALL
    assert cheapest_model(100, both).name == SMALL
    assert default_model(question("x"), fleet(QUOTING)).name == QUOTER


def test_the_default_is_the_first_that_fits_and_sees_what_is_there_to_see():
    eyes = coder(capabilities={Capability.CHAT, Capability.VISION})
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    assert default_model(question("x", "m", image), fleet(small(), eyes)).name == CODER
    assert default_model(question("x"), fleet(small(), eyes)).name == SMALL
    assert default_model(question("x " * 20_000), fleet()).name == CODER
