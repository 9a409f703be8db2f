"""The files of ``config/`` are ready: they load as they are, and so do the settings in them that wait behind a #."""

import re
from pathlib import Path

import pytest

from edge.config import load
from edge.config.starter import CHOICES, starter, usual
from edge.settings import Settings

CONFIG = Path(__file__).parents[1] / "config"
SAMPLES = {
    "ollama": ["ollama"],
    "vllm": ["vllm"],
    "llama-cpp": ["llama.cpp"],
    "lm-studio": ["lm-studio"],
    "clouds": ["openai", "anthropic"],
}
UPSTREAMS = {
    "ollama": [("ollama", "http://127.0.0.1:11434")],
    "vllm": [("openai-compatible", "http://127.0.0.1:8000")],
    "llama-cpp": [("openai-compatible", "http://127.0.0.1:8080")],
    "lm-studio": [("openai-compatible", "http://127.0.0.1:1234")],
    "clouds": [("openai", ""), ("anthropic", "")],
}


def settings(path: Path) -> Settings:
    """Load a file, with the variables that it refers to outside of comments."""
    named = re.findall(r"^[^#\n]*\$\{(\w+)\}", path.read_text(), re.MULTILINE)
    loaded = load(path, dict.fromkeys(named, "sk-a-long-enough-key"))
    assert loaded.warnings == []
    return loaded.settings


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_loads_as_it_is(name: str) -> None:
    loaded = settings(CONFIG / f"{name}.toml")
    assert [(one.kind, one.url) for one in loaded.upstream] == UPSTREAMS[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_its_settings_behind_a_hash_load_too(name: str, tmp_path: Path) -> None:
    text = (CONFIG / f"{name}.toml").read_text()
    bare = tmp_path / "edge.toml"
    bare.write_text(re.sub(r"^#(?! |$)", "", text, flags=re.MULTILINE))  # prose has a space after its #
    assert len(settings(bare).upstream) >= len(UPSTREAMS[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_none_has_a_secret_in_it(name: str) -> None:
    text = (CONFIG / f"{name}.toml").read_text()
    assert re.findall(r'(?:api_key|keys) = \[?"(?!\$\{\w+\}")', text) == []


def test_there_is_no_sample_that_is_not_tested() -> None:
    assert sorted(path.stem for path in CONFIG.glob("*.toml")) == sorted([*SAMPLES, "edge"])


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_what_edge_init_writes(name: str) -> None:
    assert (CONFIG / f"{name}.toml").read_text() == starter([usual(choice) for choice in SAMPLES[name]])


def test_edge_init_has_a_sample_for_everything_that_it_can_be_told() -> None:
    assert sorted(choice for choices in SAMPLES.values() for choice in choices) == sorted(CHOICES)
