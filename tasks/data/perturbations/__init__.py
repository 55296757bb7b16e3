"""What happens to a picture on its way: one file per kind."""
