import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.planning.rules import find_structure
from master.planning.structure import MOST_PARTS, Merge
from tests.unit.planning.templates import DOCUMENT

SPLIT = {
    "numbered questions": (
        "Please answer:\n1. What is TCP?\n2. Why is UDP faster?\n3. When would I use QUIC?",
        ["What is TCP?", "Why is UDP faster?", "When would I use QUIC?"],
    ),
    "numbered wishes, no lead": (
        "1. Explain DNS caching\n2. List three DNS servers\n3. Describe DNSSEC",
        ["Explain DNS caching", "List three DNS servers", "Describe DNSSEC"],
    ),
    "terms under one verb": (
        "Explain the following terms:\n- TCP\n- UDP\n- QUIC",
        ["TCP", "UDP", "QUIC"],
    ),
    "bulleted wishes": (
        "I need help with my café:\n* Suggest a name\n* Write a slogan for the "
        "window\n* Plan the opening day",
        ["Suggest a name", "Write a slogan for the window", "Plan the opening day"],
    ),
    "letters": (
        "a) What causes tides?\nb) Why are there two a day?",
        ["What causes tides?", "Why are there two a day?"],
    ),
    "inline numbers": (
        "Tell me: 1) how DNS works, 2) why caching matters, and 3) what a TTL is.",
        ["how DNS works", "why caching matters", "what a TTL is"],
    ),
    "inline numbers in brackets": (
        "Please (1) explain what a quorum queue is and (2) list its limits.",
        ["explain what a quorum queue is", "list its limits"],
    ),
    "markdown numbering": (
        "1. What is Kubernetes?\n1. What is k3s?\n1. Which one runs on a Raspberry Pi?",
        ["What is Kubernetes?", "What is k3s?", "Which one runs on a Raspberry Pi?"],
    ),
    "details below a number": (
        "1. Write a login form\n   - with e-mail\n   - with password\n2. Describe how "
        "sessions work",
        ["Write a login form", "Describe how sessions work"],
    ),
    "loose list": (
        "1. What is a mutex?\n\n2. What is a semaphore?\n\n3. When does a deadlock happen?",
        ["What is a mutex?", "What is a semaphore?", "When does a deadlock happen?"],
    ),
    "several questions": (
        "What is a monad? How does it differ from a functor? When should I use one?",
        ["What is a monad?", "How does it differ from a functor?", "When should I use one?"],
    ),
    "questions with a setting": (
        "I have a Flask app. How do I deploy it with Docker? It uses sqlite. How do I "
        "back that up?",
        ["How do I deploy it with Docker?", "It uses sqlite"],
    ),
    "questions on lines": (
        "Who founded Rome?\nWhen did the republic end?\nWhy did the western empire fall?",
        ["Who founded Rome?", "When did the republic end?", "Why did the western empire fall?"],
    ),
    "a polite opening": (
        "Can you help me? How do I install Docker? And how do I give it access to the GPU?",
        ["How do I install Docker?", "And how do I give it access to the GPU?"],
    ),
    "a short why belongs to its question": (
        "Is it safe to eat raw eggs? Why? How long can I keep them in the fridge?",
        ["Is it safe to eat raw eggs?", "How long can I keep them in the fridge?"],
    ),
    "a wish about style at the end": (
        "What is inflation? How do central banks fight it? Keep it short, please.",
        ["What is inflation?", "How do central banks fight it?"],
    ),
    "comparison of three": (
        "Compare Postgres, MySQL and SQLite regarding speed, licence and replication.",
        ["Postgres", "MySQL", "SQLite"],
    ),
    "comparison of two by criteria": (
        "Please compare Kafka and RabbitMQ in terms of latency and operations.",
        ["Kafka", "RabbitMQ"],
    ),
    "comparison with a choice": (
        "Compare React, Vue and Svelte. I know a little HTML. Which one should I learn first?",
        ["React", "Vue", "Svelte"],
    ),
    "differences among three": (
        "What are the differences between TCP, UDP and QUIC?",
        ["TCP", "UDP", "QUIC"],
    ),
    "for each, first": (
        "For each of Berlin, Paris and Rome, name the best museum.",
        ["Berlin", "Paris", "Rome"],
    ),
    "for each, last": (
        "Describe the weather in January for each of Oslo, Cairo and Lima.",
        ["Oslo", "Cairo", "Lima"],
    ),
    "German list": (
        "Bitte beantworte:\n1. Was ist ein Mühlgraben?\n2. Wie treibt er das Rad an?",
        ["Was ist ein Mühlgraben?", "Wie treibt er das Rad an?"],
    ),
    "German wishes": (
        "- Erkläre Photosynthese\n- Nenne drei Pflanzen\n- Beschreibe ein Experiment dazu",
        ["Erkläre Photosynthese", "Nenne drei Pflanzen", "Beschreibe ein Experiment dazu"],
    ),
    "German questions": (
        "Ich plane einen Server. Welche GPU brauche ich dafür? Wie viel RAM ist sinnvoll?",
        ["Welche GPU brauche ich dafür?", "Wie viel RAM ist sinnvoll?"],
    ),
    "German comparison": (
        "Vergleiche Python, Go und Rust hinsichtlich Lernkurve und Geschwindigkeit.",
        ["Python", "Go", "Rust"],
    ),
    "German for each": (
        "Nenne die Einwohnerzahl jeweils für Hamburg, Köln und München.",
        ["Hamburg", "Köln", "München"],
    ),
    "French questions": (
        "Quelle est la capitale de la France ? Combien d'habitants y vivent aujourd'hui ?",
        ["Quelle est la capitale de la France ?", "Combien d'habitants y vivent aujourd'hui ?"],
    ),
    "Spanish list": (
        "1. Explica la fotosíntesis\n2. Describe el ciclo del agua",
        ["Explica la fotosíntesis", "Describe el ciclo del agua"],
    ),
    "Japanese questions": (
        "日本の首都はどこですか\uff1f人口はどれくらいですか\uff1f",
        ["日本の首都はどこですか\uff1f", "人口はどれくらいですか\uff1f"],
    ),
    "Arabic questions": (
        "ما هي عاصمة مصر في العصر الحديث؟ كم عدد سكان القاهرة اليوم؟",
        ["ما هي عاصمة مصر في العصر الحديث؟", "كم عدد سكان القاهرة اليوم؟"],
    ),
    "Windows line ends": (
        "Answer these questions:\r\n1. What is DNS?\r\n2. What is DHCP?",
        ["What is DNS?", "What is DHCP?"],
    ),
}

WHOLE = {
    "one question": "What is the capital of France?",
    "two tiny questions": "Who? What? Where?",
    "small talk": "Hi! How are you? What's up?",
    "a greeting": "Hello there",
    "nothing": "",
    "a question with a why": "Is the earth really getting warmer? Why or why not?",
    "an alternative": "Should I learn Python? Or Go?",
    "a difference of two": "What is the difference between TCP and UDP?",
    "a comparison of two without criteria": "Compare cats and dogs.",
    "translating a list": (
        "Translate to German:\n1. Where is the station?\n2. How much is it?\n3. What time is it?"
    ),
    "proofreading a list": (
        "Proofread this list:\n- The cat sat on the mat\n- The dog eated the bone"
    ),
    "ranking a list": "Rank these by height:\n1. Everest\n2. K2\n3. Mont Blanc",
    "a choice from a list": (
        "Which of these is the best for a beginner?\n1. Rust\n2. Python\n3. Haskell"
    ),
    "a choice after a list": (
        "1. Write tests first\n2. Write code first\n\nWhich of the two is better?"
    ),
    "a shopping list": "- milk\n- eggs\n- bread",
    "steps to review": (
        "Here is my plan, what is wrong with it?\n1. Buy a GPU\n2. Install Ollama\n3. Get rich"
    ),
    "replying to a mail": (
        "Reply to this mail:\nHi Ann, can you come on Monday? What should we bring for lunch?"
    ),
    "a mail, then the wish": (
        "Hi Ann, can you come on Monday? What should we bring for lunch?\n\n"
        "Write a friendly reply that says yes."
    ),
    "a quoted mail": (
        "What is the tone of this?\n> Where were you yesterday?\n> Why did nobody call me?"
    ),
    "quoted questions": "What does 'Who am I? Why am I here?' mean in Les Misérables, the musical?",
    "a web address": (
        "What does https://example.org/?q=1 return when I call it with curl from a shell?"
    ),
    "a list in code": (
        "Why does this fail?\n```python\n# 1. What is x?\n# 2. What is y?\nx = y\n```"
    ),
    "questions in code": (
        "Explain this:\n```\nprint('Who are you? What do you want?')\ninput('Name? ')\n```"
    ),
    "code that is never closed": "Fix this\n```\n1. Explain a\n2. Explain b",
    "questions in tags": (
        "Is this text any good?\n<text>\n1. What is love?\n2. Where is it?\n3. Who knows?\n</text>"
    ),
    "a recipe to shorten": (
        "Kürze dieses Rezept:\n1. Nimm zwei Eier\n2. Schlage sie schaumig\n3. Gib Mehl dazu"
    ),
    "German: one question": "Was ist der Unterschied zwischen einem Mühlgraben und einem Kanal?",
    "German: translating": (
        "Übersetze ins Englische: Wo ist der Bahnhof? Wie viel kostet eine Fahrkarte?"
    ),
    "a version number": "Is Python 3.11 faster than 3.10 for web servers, and by how much exactly?",
    "two lists": "1. Explain a\n2. Explain b\n\nAnd also:\n1. Explain c\n2. Explain d",
    "German: for each, in the middle": "Nenne jeweils für Köln und Ulm die heutige Einwohnerzahl.",
    "a wish in a mail": "Übersetze ins Deutsche: Who are you? What do you want from us?",
    "a short document": "Summarise:\n# One\n\nShort.\n\n# Two\n\nAlso short.",
    "rewriting a long document": f"Rewrite this in simple words:\n\n{DOCUMENT}",
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_question_with_parts_is_taken_apart(name):
    text, titles = SPLIT[name]
    structure = find_structure(text)
    assert structure is not None
    assert [part.title for part in structure.parts] == titles


@pytest.mark.parametrize("name", WHOLE)
def test_a_question_without_parts_stays_whole(name):
    assert find_structure(WHOLE[name]) is None


DEPENDENT = {
    "a pronoun for what was made": (
        "1. Write a CSV parser\n2. Write unit tests for it\n3. Explain RFC 4180",
        [(), (0,), ()],
    ),
    "by number": (
        "1. Estimate the cost\n2. Estimate the time\n3. Using the results of 1 and 2, "
        "write an offer",
        [(), (), (0, 1)],
    ),
    "on the one before": (
        "1. List the planets\n2. Based on that, name the largest",
        [(), (0,)],
    ),
    "on all": (
        "1. Explain TCP\n2. Explain UDP\n3. Using all of the above, recommend one",
        [(), (), (0, 1)],
    ),
    "on both": (
        "1. What is a quorum queue?\n2. What is an outbox?\n3. Compare both.",
        [(), (), (0, 1)],
    ),
    "on the two before": (
        "1. Name a river\n2. Explain TCP\n3. Explain UDP\n4. Which of the two is faster?",
        [(), (), (), (1, 2)],
    ),
    "on them": (
        "1. Explain TCP\n2. Explain UDP\n3. Explain QUIC\n4. Please compare them",
        [(), (), (), (0, 1, 2)],
    ),
    "on both, in German": (
        "1. Erkläre TCP\n2. Erkläre UDP\n3. Vergleiche beide.",
        [(), (), (0, 1)],
    ),
    "on both, in a table": (
        "1. Explain TCP\n2. Explain UDP\n3. Then compare the two protocols in a table",
        [(), (), (0, 1)],
    ),
    "on the one that names both": (
        "1. Explain TCP and UDP\n2. Compare both",
        [(), (0,)],
    ),
    "then": ("1. Find a recipe for bread\n2. Then list what I must buy", [(), (0,)]),
    "in German": (
        "1. Entwirf ein Datenmodell\n2. Erkläre SQL\n3. Schreibe basierend auf "
        "Schritt 1 die Tabellen",
        [(), (), (0,)],
    ),
    "of a step that comes later": ("1. Explain step 2 of baking\n2. Explain yeast", [(), ()]),
}


@pytest.mark.parametrize(
    "item",
    [
        "Explain both HTTP and FTP",
        "Compare both HTTP and FTP",
        "Explain HTTP and FTP, with an example of both.",
        "Python or Go: which of the two is faster?",
        "Is it DNA, RNA, or both?",
        "Name three sorting algorithms and say which of them is stable",
        "Which of these is prime: 4, 7 or 9?",
        "Erkläre Kafka und Redis, und welche der beiden schneller ist",
    ],
)
def test_a_part_that_names_what_it_is_about_waits_for_no_other(item):
    structure = find_structure(f"1. Explain bread\n2. Explain yeast\n3. {item}")
    assert structure is not None
    assert [part.depends_on for part in structure.parts] == [(), (), ()]


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_part_depends_on_what_it_builds_on(name):
    text, needs = DEPENDENT[name]
    structure = find_structure(text)
    assert structure is not None
    assert [part.depends_on for part in structure.parts] == needs


def test_a_part_says_everything_and_names_the_others():
    text = "For my bakery in Ulm:\n1. Suggest a name\n2. Write a slogan\n\nBe funny."
    structure = find_structure(text)
    assert structure is not None
    first = structure.parts[0].prompt
    assert first.startswith("For my bakery in Ulm:\n\nSuggest a name\n\nBe funny.")
    assert "- Write a slogan" in first
    assert structure.parts[0].ask == "Suggest a name"


def test_a_code_block_stays_whole_in_its_own_item():
    code = "```py\n1. not an item\n2. nor this?\n```"
    structure = find_structure(f"1. Explain this:\n{code}\n2. Write the same in Rust")
    assert structure is not None
    assert [code in part.ask for part in structure.parts] == [True, False]


def test_a_code_block_before_the_list_goes_to_every_part():
    structure = find_structure("```py\nx = 1\n```\n1. Explain the code\n2. Write a test")
    assert structure is not None
    assert all("x = 1" in part.prompt for part in structure.parts)


def test_a_comparison_is_merged_and_the_rest_is_not():
    assert find_structure(SPLIT["comparison of three"][0]).merge is Merge.ITEMS
    assert find_structure(SPLIT["for each, last"][0]).merge is Merge.NONE


@pytest.mark.parametrize(
    "text",
    [f"Summarise this:\n\n{DOCUMENT}", f"{DOCUMENT}\n\nFasse das bitte zusammen."],
    ids=["wish first", "wish last"],
)
def test_a_long_document_is_summarised_by_section(text):
    structure = find_structure(text)
    assert structure.merge is Merge.SECTIONS
    assert 2 <= len(structure.parts) <= MOST_PARTS
    joined = "\n\n".join(part.document for part in structure.parts)
    assert joined == DOCUMENT.strip()


def test_each_section_on_its_own_is_not_merged():
    structure = find_structure(f"Summarise each section:\n\n{DOCUMENT}")
    assert structure.merge is Merge.NONE


def test_questions_about_a_document_each_get_the_document_once():
    text = f"What drives the wheel? Who wrote the introduction of it?\n\n{DOCUMENT}"
    structure = find_structure(text)
    assert [part.title for part in structure.parts] == [
        "What drives the wheel?",
        "Who wrote the introduction of it?",
    ]
    assert all(part.document == DOCUMENT.strip() for part in structure.parts)
    assert all("Chapter 1" not in part.prompt for part in structure.parts)


def test_headings_inside_a_code_block_do_not_make_a_document():
    assert find_structure("Summarise:\n```\n# a\n# b\n" + "word " * 3000 + "\n```") is None


def test_more_items_than_parts_are_grouped_and_none_is_lost():
    items = [f"What is the number {n} about?" for n in range(1, 21)]
    text = "\n".join(f"{n}. {item}" for n, item in enumerate(items, start=1))
    structure = find_structure(text)
    assert len(structure.parts) == MOST_PARTS
    asked = "\n".join(part.ask for part in structure.parts)
    assert all(item in asked for item in items)


WORDS = st.sampled_from(
    [
        *("1. ", "2. ", "- ", "a) ", "\n", "\n\n", "?", " What", " compare", " A, B and C", "```"),
        *("# H\n", " for each of ", "<t>", "</t>", '"', "> ", " then", " it", ".", "\U000f0001"),
        *("é", " 日本\uff1f"),
    ]
)


@given(st.lists(WORDS, max_size=40).map("".join))
def test_any_text_gives_few_sensible_parts_or_none(text):
    structure = find_structure(text)
    if structure is None:
        return
    assert 2 <= len(structure.parts) <= MOST_PARTS
    for place, part in enumerate(structure.parts):
        assert part.ask
        assert part.prompt
        assert all(need < place for need in part.depends_on)


@pytest.mark.parametrize(
    "unit",
    [
        *("<a>", "<a{}>", "```\n", '"', "1. a?\n", "- \n", "(a) ", "# h\n", "compare a, ", "> q\n"),
        *("\n \n", "for each of a and ", "a? ", "„x", "\t", "1) ", "it ", string.whitespace),
    ],
)
def test_a_hostile_text_takes_no_long_time(unit):
    count = 200_000 // len(unit)
    text = "".join(unit.replace("{}", str(n)) for n in range(count))
    began = time.process_time()
    find_structure(text)
    assert time.process_time() - began < 3  # a quadratic rule takes minutes here
