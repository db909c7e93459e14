"""How a sum is evaluated on a CPU: speed alone, no calculus."""
