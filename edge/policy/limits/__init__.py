"""How much a principal may use: rates, budgets, and the counts behind them."""
