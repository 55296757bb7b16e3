"""Flows compose tasks; they hold no mathematics. Importing any of them lets storage read Prefect's blocks."""

from flows.credentials import read_block
from storage.credentials import read_blocks_with

read_blocks_with(read_block)
