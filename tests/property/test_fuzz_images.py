"""Damaged picture files: each is decoded within the limits or set aside with a reason; none crashes, hangs or swells.

3,000 inputs here; with TELLTALE_CHAOS=on (`make chaos`) as many as TELLTALE_FUZZED says, 100,000 unless it says.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.property.image_mutations import REASONS, mutated, outcome, seed_files

ROOT = Path(__file__).parents[2]
CHAOS = os.environ.get("TELLTALE_CHAOS") == "on"
INPUTS = int(os.environ.get("TELLTALE_FUZZED", "100000")) if CHAOS else 3_000
REAL_INPUTS = INPUTS // 10
IN_ONE_PROCESS = 10_000

# One million pixels are 4 MB in Pillow, and a conversion holds a few of them at once.
MOST_GROWTH_BYTES = 200_000_000
SLOWEST_S = 5.0


def decode_damaged(journal: Path, inputs: int, *pictures: Path) -> Counter[str]:
    """Decode inputs in processes of their own; what became of them."""
    outcomes: Counter[str] = Counter()
    for first in range(0, inputs, IN_ONE_PROCESS):
        command = [sys.executable, "-m", "tests.property.image_mutations"]
        count = min(IN_ONE_PROCESS, inputs - first)
        done = subprocess.run(
            [*command, str(first), str(count), str(journal), *map(str, pictures)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=7_200,
            check=False,
        )
        at = journal.read_text() if journal.exists() else "none"
        assert done.returncode == 0, f"input {at} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        said: dict[str, Any] = json.loads(done.stdout)
        print(f"inputs {first}..{first + count - 1} of {len(pictures) or 'made'} files: {said}")
        assert said["slowest_s"] < SLOWEST_S, said
        assert said["grown_bytes"] < MOST_GROWTH_BYTES, said
        outcomes += Counter(said["outcomes"])
    return outcomes


def test_damaged_files_of_every_kind_are_decoded_or_set_aside(tmp_path: Path) -> None:
    outcomes = decode_damaged(tmp_path / "journal", INPUTS)
    assert outcomes.total() == INPUTS
    # Neither so mild that all is well nor so rough that no parser gets anywhere.
    assert outcomes["decoded"] > INPUTS // 10
    assert outcomes.keys() >= {"decoded", "truncated", "unreadable", "too-large", "too-small"}
    assert outcomes.keys() <= REASONS | {"decoded"}


def test_damaged_photographs_are_decoded_or_set_aside(tmp_path: Path) -> None:
    shared = Path(os.environ.get("TELLTALE_SHARED", ROOT.parent / "shared")) / "data"
    folders = ("coco/val2017", "imagenet", "sd14", "unseen")
    found = [path for folder in folders for path in sorted((shared / folder).rglob("*.[jp][pn]*g"))[:6]]
    if not found:
        pytest.skip(f"no photographs in {shared}: TELLTALE_SHARED names no folder with them")
    assert decode_damaged(tmp_path / "journal", REAL_INPUTS, *found)["decoded"] > REAL_INPUTS // 10


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags
@pytest.mark.parametrize("kind", seed_files())
def test_each_kind_is_read_when_it_is_whole(kind: str) -> None:
    assert outcome(seed_files()[kind]) == "decoded"


def test_an_input_follows_from_its_number() -> None:
    files = list(seed_files().values())
    inputs = [mutated(number, files) for number in range(50)]
    assert len(set(inputs)) == 50
    # A second later as well: a colour profile likes to note the time.
    time.sleep(1.1)
    again = list(seed_files().values())
    assert again == files
    assert [mutated(number, again) for number in range(50)] == inputs
