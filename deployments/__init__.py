"""Presets, Prefect deployments, pools and local services."""

import flows  # noqa: F401  (lets storage read Prefect's blocks)
