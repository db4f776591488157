"""What clients did, told back to whoever wrote them: a ledger of tasks, and findings about manners."""
