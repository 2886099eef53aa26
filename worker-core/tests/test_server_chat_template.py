from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from parrot import write_folder

from sluice_worker.errors import CheckpointError
from sluice_worker.loading.model_folder import open_folder
from sluice_worker.server.chat_template import ChatTemplate, load_chat_template
from sluice_worker.server.errors import ApiError
from sluice_worker.server.requests import ChatMessage
from sluice_worker.server.tokenizer import load_tokenizer


def now() -> datetime:
    return datetime(2026, 7, 4, 12, 30)


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>"}, now)


def messages(*raw: dict[str, Any]) -> list[ChatMessage]:
    return msgspec.convert(list(raw), list[ChatMessage])


USER = messages({"role": "user", "content": "hi"})


def test_blocks_are_trimmed_and_special_tokens_and_the_generation_prompt_are_known() -> None:
    source = """{{ bos_token }}
    {% for message in messages %}
[{{ message.role }}] {{ message['content'] }}
    {% endfor %}
    {%- if add_generation_prompt %}[assistant]{% endif %}"""

    assert template(source).render(USER) == "<s>\n[user] hi\n[assistant]"


def test_content_parts_are_joined_and_older_and_newer_role_names_translated() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    conversation = messages(
        {"role": "developer", "content": parts},
        {"role": "assistant", "content": None},
        {"role": "function", "content": "3", "name": "f"},
    )
    source = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"

    assert template(source).render(conversation) == "system=one two;assistant=;tool=3;"


def test_tool_arguments_arrive_as_an_object_and_tools_as_given() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": "<x>"}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": "{not json"}}
    conversation = messages({"role": "assistant", "content": None, "tool_calls": [call, broken]})
    source = (
        "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}"
        "{{ tools[0].function.name }}"
    )

    text = template(source).render(conversation, [{"type": "function", "function": {"name": "add"}}])

    assert text == '{"a": 1, "b": "<x>"}"{not json"add'


def test_the_date_comes_from_the_clock_and_further_variables_from_the_request() -> None:
    source = "{{ strftime_now('%d %b %Y') }} {{ enable_thinking }}"

    assert template(source).render(USER, None, {"enable_thinking": False}) == "04 Jul 2026 False"


def test_loop_controls_and_generation_marks_are_understood() -> None:
    source = "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    source += "{% generation %}said{% endgeneration %}"

    assert template(source).render(USER) == "01said"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[9].content }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_is_the_requests_fault(source: str) -> None:
    with pytest.raises(ApiError, match="chat template cannot render") as refused:
        template(source).render(USER)

    assert refused.value.status == 400
    assert refused.value.detail.param == "messages"


def test_the_jinja_file_wins_over_the_config_and_a_list_gives_its_default(tmp_path: Path) -> None:
    named: Any = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "from the list"}]
    folder = write_folder(tmp_path, template=named)

    def render() -> str | None:
        opened = open_folder(folder, "parrot")
        loaded = load_chat_template(opened, load_tokenizer(opened), now)
        return loaded.render(USER) if loaded else None

    assert render() == "from the list"
    (folder / "chat_template.jinja").write_text("from the file")
    assert render() == "from the file"


def test_a_model_may_have_no_template(tmp_path: Path) -> None:
    folder = open_folder(write_folder(tmp_path, template=None), "parrot")

    assert load_chat_template(folder, load_tokenizer(folder), now) is None


def test_a_template_that_does_not_compile_names_the_line(tmp_path: Path) -> None:
    folder = open_folder(write_folder(tmp_path, template="fine\n{% if %}"), "parrot")

    with pytest.raises(CheckpointError, match="line 2"):
        load_chat_template(folder, load_tokenizer(folder), now)
