"""Configuring a cloud: what it needs, what it has by itself, and what is said when its SDK is not installed."""

import sys
from pathlib import Path

import pytest

from edge.config import ConfigError, load
from edge.policy.hops import Hop
from edge.settings import Settings, Upstream
from edge.upstream.discovery.places import places

KINDS = ["openai", "anthropic"]
WHERE = {"openai": "https://api.openai.com", "anthropic": "https://api.anthropic.com"}
PEM = Path(__file__).parent / "support" / "certificate.pem"


def loaded(path: Path, text: str) -> Settings:
    file = path / "edge.toml"
    file.write_text(text)
    return load(file, {}).settings


def cloud(kind: str, *more: str) -> str:
    return "\n".join(["[[upstream]]", 'name = "cloud"', f'kind = "{kind}"', *more])


KEY = 'api_key = "sk-long-enough"'


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cloud_needs_a_name_and_a_key_only(tmp_path: Path, kind: str) -> None:
    settings = loaded(tmp_path, cloud(kind, KEY))
    (place,) = places(settings, frozenset(), Hop())
    assert place.settings.url == WHERE[kind]
    await place.pool.close()


@pytest.mark.parametrize("kind", KINDS)
def test_it_may_be_elsewhere_and_trust_another_authority(tmp_path: Path, kind: str) -> None:
    (upstream,) = loaded(tmp_path, cloud(kind, KEY, f'ca_file = "{PEM}"')).upstream
    assert upstream == Upstream(name="cloud", kind=upstream.kind, api_key="sk-long-enough", ca_file=str(PEM))
    (upstream,) = loaded(tmp_path, cloud(kind, KEY, 'url = "https://eu.example.com"')).upstream
    assert upstream.url == "https://eu.example.com"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("more", "key", "hint"),
    [
        ([], "upstream[0].kind", "needs an api_key"),
        (['api_key = ""'], "upstream[0].api_key", "needs an api_key"),
        ([KEY, 'url = "https://api.example.com/v1"'], "upstream[0].url", "leave out /v1"),
        ([KEY, 'url = "http://127.0.0.1:11435"'], "upstream[0].url", "is Edge's own address"),
    ],
)
def test_what_cannot_work_is_told_with_its_key(tmp_path: Path, kind: str, more: list[str], key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, cloud(kind, *more))
    (problem,) = caught.value.problems
    assert problem.key == key
    assert hint in problem.message


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_package_it_is_refused_at_the_start(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)  # as Python marks what cannot be imported
    with pytest.raises(ConfigError, match=rf"needs the Python package {kind}, which is not installed"):
        loaded(tmp_path, cloud(kind, KEY))
