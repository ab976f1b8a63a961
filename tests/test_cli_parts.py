"""What the commands are made of: options, settings, figures, and text that is safe to show."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.cli import common, config, main
from agentenv.env import Env
from agentenv.errors import ConfigError, UsageError
from agentenv.spec import Limits
from tests.worlds import sums


def test_options_nest_and_are_refused_where_they_contradict() -> None:
    assert common.pairs(["a.b=1", "a.c=x y", "d-e=[1, 2]"]) == {"a": {"b": 1, "c": "x y"}, "d_e": [1, 2]}
    for wrong in (["a"], ["=1"], ["a b=1"], ["a=1", "a=2"], ["a=1", "a.b=2"]):
        with pytest.raises(UsageError):
            common.pairs(wrong)


@given(st.text())
def test_any_value_of_an_option_is_taken(value: str) -> None:
    assert list(common.pairs([f"key={value}"])) == ["key"]


@given(st.text())
def test_shown_text_cannot_drive_a_terminal(text: str) -> None:
    shown = common.printable(text)
    assert all(c.isprintable() or c in "\n\t" or ord(c) > 0x9F for c in shown)
    shown.encode()


_PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _PLAIN, max_size=4), st.integers(1, 9))
def test_settings_survive_their_file(tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], n: int) -> None:
    chosen = config.RolloutConfig("table", "weak", n, out="x", options=options)
    path = tmp_path_factory.mktemp("c") / "config.toml"
    try:
        text = config.to_toml(chosen).encode()
    except UnicodeEncodeError:  # half characters: no file can hold them
        return
    path.write_bytes(text)
    assert config.read(path, {}) == chosen


def test_options_that_toml_cannot_say_are_left_out() -> None:
    chosen = config.RolloutConfig("table", "weak", options={"difficulty": None, "limits": {"turns": None, "calls": 3}})
    assert "difficulty" not in config.to_toml(chosen)
    assert "calls = 3" in config.to_toml(chosen)


def test_secrets_are_found_wherever_they_stand() -> None:
    given = {
        "base_url": "https://u:p@h/v1",
        "extra_body": {"api_key": "x", "max_tokens": 3},
        "max_tokens": 5,
    }
    clean, changed = config.without_secrets(config.RolloutConfig("e", "p", policy_options=given))
    assert clean.policy_options == {
        "base_url": "https://h/v1", "extra_body": {"max_tokens": 3}, "max_tokens": 5,
    }  # fmt: skip
    assert sorted(changed) == ["base_url", "extra_body"]


def test_config_needs_an_environment_and_a_policy() -> None:
    with pytest.raises(ConfigError, match="which environment"):
        config.read(None, {})


def test_figures_read_well() -> None:
    assert [common.number(x) for x in (None, 3.0, 0.12345, 12345.6, float("nan"))] == [
        "-",
        "3",
        "0.123",
        "12,346",
        "nan",
    ]


def shaped(
    *,
    words: Sequence[str] = (),
    map: Mapping[str, str] | None = None,
    limits: Limits | Mapping[str, Any] | None = None,
    number: int | None = None,
    either: str | Iterable[str] = "",
) -> Env:
    """An environment with options of every shape."""
    return sums(size=2)


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("words", "x", "words is 'x'; it wants a list of texts, for instance words=[\"x\"]"),
        ("words", 3, "words is 3; it wants a list of texts"),
        ("words", [3], "words is [3]; it wants a list of texts"),
        ("map", "x", "map is 'x'; it wants keys with values, for instance map.KEY=VALUE or none"),
        ("map", {"a": 1}, "map is {'a': 1}; it wants keys with values or none"),
        ("limits", 3, "limits is 3; it wants a Limits or keys with values or none"),
        ("number", "x", "number is 'x'; it wants a whole number or none"),
        ("number", True, "number is True; it wants a whole number"),
        ("number", 1.5, "number is 1.5; it wants a whole number"),
        ("either", 3, "either is 3; it wants a text or a list of texts"),
    ],
)
def test_an_option_of_the_wrong_shape_is_named_with_how_to_write_it(option: str, value: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(hint)):
        common.make_env("tests.test_cli_parts:shaped", {option: value})


def test_options_of_the_right_shape_are_let_through() -> None:
    right = {"words": ["x"], "map": {"a": "b"}, "limits": {"turns": 3}, "number": 3, "either": "x"}
    common.make_env("tests.test_cli_parts:shaped", right).close()


def test_a_warning_that_repeats_is_shown_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("agentenv")
    with common.complaints():
        for number in range(3):
            logger.warning("episode %d failed: %s", number, "away")
        logger.warning("another")
    assert capsys.readouterr().err == "episode 0 failed: away\nanother\n(2 more like it: away)\n"
    with common.complaints(quiet=True):
        logger.warning("another")
        logger.warning("another")
    assert capsys.readouterr().err == ""
    assert not [handler for handler in logger.handlers if type(handler).__module__.startswith("agentenv.cli")]


def test_folders_named_in_the_same_second_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "now")
    plain = config.RolloutConfig("table", "weak")
    assert [config.with_folder(plain, make=True).out for _ in range(3)] == [
        "runs/table-weak-now", "runs/table-weak-now-2", "runs/table-weak-now-3",
    ]  # fmt: skip
    assert config.with_folder(plain, make=False).out == "runs/table-weak-now-4"
    assert not Path("runs/table-weak-now-4").exists()


def test_chat_says_whether_it_records(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for more, told in (((), True), (("--out", "talk"), False)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("/quit\n"))
        main(("chat", "-p", "random", *more))
        assert ("Nothing is recorded" in capsys.readouterr().out) == told
