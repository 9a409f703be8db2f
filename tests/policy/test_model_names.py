"""Which spellings an Ollama reads as one model, and which globs fit them."""

import pytest

from edge.policy.auth.permission import may_use
from edge.policy.auth.principal import Principal
from edge.policy.model_names import Globs, Names, canonical, spellings

ONE_MODEL = (
    "smollm2",
    "smollm2:latest",
    "SmolLM2",
    "SMOLLM2:LATEST",
    "library/smollm2",
    "Library/SmolLM2:latest",
    "registry.ollama.ai/library/smollm2",
    "Registry.Ollama.AI/library/smollm2:Latest",
    "https://registry.ollama.ai/library/smollm2",
    "http://registry.ollama.ai/library/smollm2:latest",
)


@pytest.mark.parametrize("name", ONE_MODEL)
def test_spellings_of_one_model(name: str) -> None:
    assert canonical(name) == "smollm2:latest"


@pytest.mark.parametrize(
    "name",
    [
        "smollm2:135m",
        "me/smollm2",
        "registry.ollama.ai/me/smollm2",
        "hf.co/library/smollm2",
        "localhost:5000/library/smollm2",
        "registry.ollama.ai/smollm2",
        "smollm",
    ],
)
def test_another_tag_namespace_or_host_is_another_model(name: str) -> None:
    assert canonical(name) != "smollm2:latest"


@pytest.mark.parametrize("name", ONE_MODEL)
@pytest.mark.parametrize(
    "glob", ["smollm2", "smollm2*", "SmolLM2", "smollm2:latest", "library/smollm2", "registry.ollama.ai/library/smol*"]
)
def test_a_glob_fits_every_spelling(glob: str, name: str) -> None:
    assert Globs([glob]).fit(name)


@pytest.mark.parametrize(
    ("glob", "name"),
    [
        ("smollm2", "smollm2:135m"),
        ("*/*", "smollm2"),
        ("library/*", "me/smollm2:latest"),
        ("hf.co/*", "smollm2:latest"),
        ("registry.ollama.ai/library/*", "me/smollm2"),
    ],
)
def test_a_glob_fits_no_other_model(glob: str, name: str) -> None:
    assert not Globs([glob]).fit(name)


def test_a_key_that_names_an_ollamas_model_otherwise_may_use_it() -> None:
    key = Principal("a", models=("SmolLM2", "library/qwen*"))
    assert may_use(key, "smollm2:latest")
    assert may_use(key, "qwen3:8b")
    assert not may_use(key, "smollm2:135m")


def test_a_name_without_tag_is_only_fitted_as_it_is_written() -> None:
    """It is no Ollama's; a vLLM tells ``Qwen`` and ``qwen`` apart."""
    key = Principal("a", models=("qwen", "library/*"))
    assert may_use(key, "qwen")
    assert not may_use(key, "Qwen")
    assert not may_use(key, "secret")


def test_a_listed_name_is_taken_before_another_spelling() -> None:
    ollama = frozenset({"smollm2:latest", "hf.co/Org/Model:Q4_K_M"})
    names = Names((frozenset({"smollm2", "Qwen"}), ollama), (spellings(ollama),))
    assert names("smollm2") == "smollm2"
    assert names("SmolLM2") == "smollm2:latest"
    assert names("HF.co/org/model:q4_k_m") == "hf.co/Org/Model:Q4_K_M"
    assert names("qwen") == "qwen", "nobody lists it, and no Ollama has it under another spelling"
