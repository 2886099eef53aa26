"""What `sluice serve` prints when it can serve: where it is, what it serves, and two ways to try it."""

from __future__ import annotations

_QUESTION = "What is the capital of France?"


def render(url: str, models: list[str], *, needs_key: bool) -> str:
    """The text, without a trailing newline. `url` has no trailing slash; the first model is used in the
    examples."""
    model = models[0] if models else "MODEL"
    key = 'os.environ["SLUICE_API_KEY"]' if needs_key else '"none"'
    header = ' -H "Authorization: Bearer $SLUICE_API_KEY"' if needs_key else ""
    lines = [
        "",
        f"  Sluice is ready at {url}   (API docs: {url}/docs)",
        f"  Model: {', '.join(models) or 'none yet'}",
        "",
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{header} \\",
        f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "{_QUESTION}"}}]}}\'',
        "",
        "  import os" if needs_key else "",
        "  from openai import OpenAI",
        f'  client = OpenAI(base_url="{url}/v1", api_key={key})',
        f'  messages = [{{"role": "user", "content": "{_QUESTION}"}}]',
        f'  answer = client.chat.completions.create(model="{model}", messages=messages)',
        "  print(answer.choices[0].message.content)",
        "",
        "  Press Ctrl-C to stop.",
        "",
    ]
    return "\n".join(line for i, line in enumerate(lines) if line or lines[i - 1] or i == 0)
