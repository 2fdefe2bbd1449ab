"""Prompts as Open WebUI sends them: same structure and marks as its stock templates."""

SENTENCE = " The water of the race drives the wheel."
DOCUMENT = "# Mill handbook\n\nAn introduction.\n\n" + "".join(
    f"## Chapter {n}\n\n{SENTENCE * 25}\n\n" for n in range(1, 10)
)
HISTORY = (
    "<chat_history>\nUSER: How does a mill work?\nASSISTANT: Water turns a wheel.\n</chat_history>"
)


def _json_task(wish: str, example: str) -> str:
    return (
        f"### Task:\n{wish}\n\n### Guidelines:\n- Use the chat's language.\n- No extra text.\n\n"
        f"### Output:\nJSON format: {example}\n\n### Chat History:\n{HISTORY}"
    )


TASKS = {
    "title_generation": _json_task("Write a title of a few words.", '{ "title": "your title" }'),
    "tags_generation": _json_task("Write tags.", '{ "tags": ["tag1", "tag2"] }'),
    "follow_up_generation": _json_task("Suggest questions.", '{ "follow_ups": ["Q 1?", "Q 2?"] }'),
    "query_generation": _json_task("Decide whether to search.", '{ "queries": ["q1", "q2"] }'),
    "image_prompt_generation": _json_task("Describe an image.", '{ "prompt": "Your prompt." }'),
    "autocomplete_generation": (
        "### Task:\nYou are an autocompletion system. Continue the text in `<text>`.\n\n"
        f'### Output:\n{{ "text": "<completion>" }}\n\n### Context:\n{HISTORY}\n'
        "<type>General</type>\n<text>How does a</text>\n#### Output:\n"
    ),
    "emoji_generation": (
        "Your task is to show the speaker's likely facial expression through a fitting emoji.\n\n"
        "Message: ```I like mills```"
    ),
    "moa_response_generation": (
        "You have been given a set of responses from various models to the latest user query: "
        '"How does a mill work?"\n\nMake one of them.\n\nResponses from models: Water. Wind.'
    ),
    "context_compaction": (
        "### Task:\nSummarize what leaves the context.\n\n### Previous Summary:\n(none)\n\n"
        "### Messages Being Compacted:\nUSER: 1. What? 2. Why?\n\n### Recent Messages Kept:\n-"
    ),
}
MEMORY_REVIEW = {"role": "system", "content": "You are the front end's private memory reviewer."}


def rag_prompt(question: str, *sources: tuple[str, str, str], attached: bool = False) -> str:
    """A question with an attached file: id, name and text of each retrieved source."""
    context = "\n".join(
        f'<source id="{number}" name="{name}" resource-type="file" resource-id="x">{text}</source>'
        for number, name, text in sources
    )
    files = '<attached_files>\n<file type="file" name="a.txt"/>\n</attached_files>\n' * attached
    return (
        "### Task:\nRespond to the user query using the provided context, with citations like [id]"
        ' only when the <source> tag has an id (e.g., <source id="1">).\n\n### Guidelines:\n'
        "- If unsure, ask.\n- Do not use XML tags.\n\n### Output:\nProvide a clear response.\n\n"
        f"<context>\n{context}\n</context>\n\n{files}{question}"
    )
