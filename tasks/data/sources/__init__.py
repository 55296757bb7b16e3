"""Where pictures come from: one file per kind."""
