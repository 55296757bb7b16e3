"""Steps: one per file, plain functions first, one thin `@step` at the end."""
