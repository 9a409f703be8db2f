"""docs/stream-path.md says what runs today, and the path stays short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.hanging import HANG_S

PAGE = Path(__file__).parents[2] / "docs" / "stream-path.md"
MOST_FILES_OF_A_REQUEST = 60
MOST_FRAMES_OF_A_TOKEN = 9


@pytest.fixture(scope="module")
def page() -> str:
    """The page, as it is now; in a process of its own, in which no other test has called anything."""
    program = Path(__file__).with_name("stream_path.py")
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, str(program)], check=False, capture_output=True, text=True, timeout=HANG_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_is_up_to_date(page):
    assert page == PAGE.read_text(), "run: make trace"


def test_a_request_visits_few_files_until_its_prelude_is_held(page):
    (files,) = re.findall(r"^Until its prelude is held: .* in (\d+) files", page, flags=re.MULTILINE)
    assert int(files) <= MOST_FILES_OF_A_REQUEST


def test_a_token_passes_few_frames(page):
    (calls,) = re.findall(r"^## One relayed token\n\n(\d+) calls", page, flags=re.MULTILINE)
    assert int(calls) <= MOST_FRAMES_OF_A_TOKEN
