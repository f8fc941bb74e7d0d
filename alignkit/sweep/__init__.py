"""Many runs from one file: variants and grids of recipes × seeds, resumable and chained."""
