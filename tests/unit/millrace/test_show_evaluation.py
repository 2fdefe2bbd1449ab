"""What `millrace eval` shows: the table, the verdict, and the plot."""

from xml.etree import ElementTree

import pytest
from rich.console import Console

from master.retrieval.evaluation.outcome import Evaluation, Leg, LegOutcome, judged
from master.retrieval.evaluation.sets import Question
from millrace.show.evaluation import as_json, evaluation_page, leads
from millrace.show.evaluation_svg import svg

SVG = "{http://www.w3.org/2000/svg}"


def outcome(leg: Leg, *ndcg: float) -> LegOutcome:
    return LegOutcome(leg, ndcg, ndcg, ndcg, tuple(4.0 for _ in ndcg))


def evaluation(*legs: LegOutcome, name: str = "set", model: str | None = "mini") -> Evaluation:
    return Evaluation(
        name=name,
        language="english",
        model=model,
        passages=70,
        questions=len(legs[0].ndcg),
        left_out=5,
        candidates=10,
        dense_weight=0.7,
        legs=legs,
    )


def shown(found: Evaluation, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(evaluation_page(found))
    return capture.get()


def four(hybrid: float, size: int = 20) -> Evaluation:
    scores = {Leg.DENSE: 0.5, Leg.SPARSE: 0.4, Leg.HYBRID: hybrid, Leg.RERANKED: 0.5}
    return evaluation(*(outcome(leg, *[score] * size) for leg, score in scores.items()))


def test_judging_keeps_the_order_of_the_questions() -> None:
    questions = [Question("q1", "?", {"a": 1}), Question("q2", "?", {"b": 1})]
    found = judged(Leg.DENSE, questions, [["x", "a"], ["b"]], [1.0, 3.0])
    assert found.reciprocal_rank == (0.5, 1.0)
    assert found.means["recall@10"] == 1.0


def test_judging_refuses_rankings_of_other_questions() -> None:
    with pytest.raises(ValueError, match="longer"):
        judged(Leg.DENSE, [Question("q1", "?", {"a": 1})], [], [])


def test_every_leg_has_its_row_and_its_bars() -> None:
    page = shown(four(0.6))
    assert "nDCG@10" in page
    assert "0.6000" in page
    assert "4 ms" in page
    assert page.count("hybrid+rerank") == 5  # its row, three bars, and its lead
    assert "5 without a relevant passage left out" in page


def test_the_better_leg_is_what_the_hybrid_is_compared_with() -> None:
    assert four(0.6).best_leg is Leg.DENSE
    swapped = evaluation(outcome(Leg.DENSE, 0.1, 0.2), outcome(Leg.SPARSE, 0.3, 0.2))
    assert swapped.best_leg is Leg.SPARSE


@pytest.mark.parametrize(
    ("hybrid", "verdict"),
    [(0.6, "Better."), (0.4, "Worse."), (0.5, "Not told apart by these questions.")],
)
def test_a_lead_is_called_one_only_if_the_interval_says_so(hybrid: float, verdict: str) -> None:
    assert leads(four(hybrid))[0].endswith(verdict)


def test_without_an_embedding_model_there_is_one_leg_and_no_comparison() -> None:
    found = evaluation(outcome(Leg.SPARSE, 0.5, 1.0), model=None)
    assert leads(found) == []
    assert found.best_leg is None
    assert "no embedding model" in shown(found)
    assert as_json(found)["ndcg_leads"] == {}


def test_json_has_each_leg_and_how_certain_the_lead_is() -> None:
    told = as_json(four(0.6))
    assert told["legs"]["hybrid"]["ndcg_at_10"] == pytest.approx(0.6)  # type: ignore[index]  # JSON
    assert told["ndcg_leads"]["hybrid"]["low"] == pytest.approx(0.1)  # type: ignore[index]  # JSON


def test_the_plot_has_a_bar_for_each_measure_of_each_leg() -> None:
    drawing = ElementTree.fromstring(svg(four(0.6)))
    bars = [shape for shape in drawing.iter(f"{SVG}rect") if shape.get("width") == "34"]
    assert len(bars) == 12
    heights = [float(bar.get("height", "")) for bar in bars[:4]]
    assert heights == pytest.approx([110, 88, 132, 110])


def test_a_name_with_markup_or_control_characters_does_not_break_the_plot_or_the_page() -> None:
    found = evaluation(outcome(Leg.SPARSE, 1.0), name='<b>&"\x1b[31m\x00', model=None)
    drawing = ElementTree.fromstring(svg(found))
    assert any("<b>&" in (text.text or "") for text in drawing.iter(f"{SVG}text"))
    assert "\x1b[31m" not in shown(found)


def test_the_page_fits_a_narrow_terminal() -> None:
    assert all(len(line) <= 80 for line in shown(four(0.6)).splitlines())
