"""The pages that a user reads: README and docs, apart from what they say of the past."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
DETECTORS = DOCS / "detectors.md"

# Decisions, results and the log of what was tried name commands as they were then.
USER_PAGES = (README, *sorted(page for page in DOCS.glob("*.md") if page.name != "tried.md"))
ALL_PAGES = (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")))
