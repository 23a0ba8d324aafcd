"""Plans, ladders, budgets and fairness."""
