"""What telltale keeps and where: stores, manifests, tables and weights. Knows neither Prefect nor torch."""
