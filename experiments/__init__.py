"""Questions and answers: recipes, plans, sweeps, laws, reports."""
