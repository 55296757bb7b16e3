"""What an experiment is made of: frozen models, validated once, at the border."""
