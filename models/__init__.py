"""Networks that come with telltale: a file each, its card, and the card in words."""
