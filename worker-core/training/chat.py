"""The chat template, once as the Jinja text that ships and once as segments with a training mark.

Both write the same characters (a test compares them). Segments exist because training needs to know which
characters the assistant wrote: only those, and the end token after them, carry loss.
"""

import json
from collections.abc import Iterator

from .corpus import Document, Message

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CALL_START = "<tool_call>"
CALL_END = "</tool_call>"

TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content -%}
{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set system = messages[0] if messages and messages[0].role == 'system' else none -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if system -%}{{- text(system.content) + '\\n\\n' -}}{%- endif -%}
{{- 'You may call these tools:\\n' -}}
{%- for tool in tools -%}{{- (tool.function if tool.function else tool) | tojson + '\\n' -}}{%- endfor -%}
{{- 'Write a call as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\\n' -}}
{%- elif system -%}
{{- '<|im_start|>system\\n' + text(system.content) + '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (loop.first and system) -%}
{{- '<|im_start|>' + message.role + '\\n' + text(message.content) -}}
{%- if message.tool_calls -%}
{%- for call in message.tool_calls -%}
{%- set function = call.function if call.function else call -%}
{%- if not loop.first or text(message.content) -%}{{- '\\n' -}}{%- endif -%}
{{- '<tool_call>\\n{"name": ' + function.name | tojson + ', "arguments": ' -}}
{{- function.arguments if function.arguments is string else function.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

Segment = tuple[str, bool]


def segments(document: Document) -> Iterator[Segment]:
    """Yield the document as `(text, trained)` pieces: plain text is trained whole, a sheet in its answers."""
    if document.text:
        yield document.text, True
    elif document.sheet:
        for question, answer in document.sheet:
            yield question, False
            yield f" {answer}\n", True
    else:
        yield from _conversation(document)
    yield END_OF_TEXT, bool(document.text)


def _conversation(document: Document) -> Iterator[Segment]:
    messages = document.messages
    system = messages[0] if messages[0].role == "system" else None
    if document.tools:
        lines = [f"{system.content}\n"] if system else []
        lines.append("You may call these tools:")
        lines += [json.dumps(tool["function"], ensure_ascii=False) for tool in document.tools]
        call = f'{CALL_START}{{"name": ..., "arguments": ...}}{CALL_END}'
        yield f"{TURN_START}system\n" + "\n".join(lines) + f"\nWrite a call as {call}.{TURN_END}\n", False
    elif system:
        yield f"{TURN_START}system\n{system.content}{TURN_END}\n", False
    for message in messages[1:] if system else messages:
        yield f"{TURN_START}{message.role}\n", False
        yield _body(message) + TURN_END, message.role == "assistant"
        yield "\n", False


def _body(message: Message) -> str:
    calls = [
        f"{CALL_START}\n{json.dumps(call, ensure_ascii=False)}\n{CALL_END}" for call in message.tool_calls
    ]
    return "\n".join([message.content, *calls] if message.content else calls or [""])
